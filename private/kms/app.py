"""One node's HTTP: questions of enclaves, and the steps of a ceremony that its operator approved."""

from collections.abc import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from private import problems
from private.kms.ceremonies import Ceremonies
from private.kms.releases import Releases, TooMany
from private.kms.steps import MAX_STEP, STEPS, Status, Step
from quotary.client.key_question import CHALLENGES, MAX_QUESTION, RELEASES, Asked
from quotary.client.key_service import parse_wish

STATUS, CEREMONIES = "/kms/v1/status", "/kms/v1/ceremonies"
JSON = "application/json"


def create_app(releases: Releases, ceremonies: Ceremonies, status: Callable[[], Status]) -> Flask:
    """Make a node's application."""
    app = Flask("kms", static_folder=None)
    # One more than is allowed, because a stream that ends at its limit looks like a body that does.
    app.config["MAX_CONTENT_LENGTH"] = MAX_QUESTION + 1

    def challenge() -> Response:
        return _json(releases.show(parse_wish(_body(256))).encode())

    def release() -> Response:
        try:
            return _json(releases.release(Asked.parse(_body(MAX_QUESTION))).encode())
        except TooMany as error:
            return problems.problem("spent", str(error), Retry_After="60")

    def step(name: str) -> Response:
        return _json(Step.parse(_body(MAX_STEP)).take(name, ceremonies))

    def show() -> Response:
        return _json(status().encode())

    app.add_url_rule(CHALLENGES, "challenge", challenge, methods=["POST"])
    app.add_url_rule(RELEASES, "release", release, methods=["POST"])
    app.add_url_rule(f"{CEREMONIES}/<any({', '.join(STEPS)}):name>", "step", step, methods=["POST"])
    app.add_url_rule(STATUS, "status", show, methods=["GET"])
    app.add_url_rule("/healthz", "healthz", _alive, methods=["GET"])
    problems.register(app)
    return app


def _body(limit: int) -> bytes:
    body = request.get_data(cache=False)
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body


def _json(data: bytes) -> Response:
    return Response(data, content_type=JSON)


def _alive() -> Response:
    return Response("ok\n", content_type="text/plain")
