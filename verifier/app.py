"""The verifier over HTTP (``docs/formats/verifier.md``): one question, its answer, and the key for it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask, Response, json, request
from werkzeug.exceptions import RequestEntityTooLarge

from quotary.attestation.kept import MAX_EVIDENCE, Kept
from quotary.attestation.quote import Terms
from quotary.canonical import Fields, b64, canonical, parse_json, time_text
from quotary.client.appraisal import terms_of
from quotary.client.policy import Policy
from quotary.errors import Judged, Malformed
from verifier import problems
from verifier.judge import Asked, judge, signed
from verifier.keys import key_set

MAX_BODY = 2 << 20
MAX_CHALLENGE = 4096
PATHS = ("/api/verify/tee-attestation", "/verify/tee-attestation")

Gather = Callable[[Kept, Terms], Mapping[str, str]]
"""Completes the collateral of some evidence, or raises ``CannotTell``."""


def create_app(
    key: ec.EllipticCurvePrivateKey, policy: Policy, gather: Gather, now: Callable[[], datetime]
) -> Flask:
    """Make the application of one verifier."""
    app = Flask("verifier", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    published = key_set(key.public_key())

    def verify() -> Response:
        at = now().replace(microsecond=0)
        asked, keep = parse_request(_body(), at)
        asked = replace(asked, kept=_completed(asked, policy, gather))
        answer = signed(judge(asked, policy, at), key)
        return _json(answer | ({"kept": b64(bytes(asked.kept))} if keep else {}))

    for path in PATHS:
        app.add_url_rule(path, path, verify, methods=["POST"])
    app.add_url_rule("/.well-known/jwks.json", "keys", lambda: _send(published), methods=["GET"])
    app.add_url_rule(
        "/healthz", "healthz", lambda: Response("ok\n", content_type="text/plain"), methods=["GET"]
    )
    problems.register(app)
    app.after_request(_add_headers)
    return app


def parse_request(body: bytes, now: datetime) -> tuple[Asked, bool]:
    """Read a request, and whether it wants the kept file back (``docs/formats/kept-evidence.md``)."""
    fields = Fields(parse_json(body, "the request"), "request")
    kept = {
        "v": 1,
        "evidence": fields.text("report", 2 * MAX_EVIDENCE),
        "collateral": fields.optional("collateral", fields.value) or {},
        "judged_at": time_text(now),
    }
    platform = fields.name("platform", 64)
    challenge = fields.optional("expected_user_data", lambda name: _challenge(fields, name))
    keep = fields.optional("keep", fields.boolean) or False
    fields.done()
    return Asked(Kept.parse(canonical(kept)), platform, challenge), keep


def _challenge(fields: Fields, name: str) -> bytes:
    found = fields.base64(name, limit=MAX_CHALLENGE)
    # Evidence holds zeros where nobody chose anything: they answer no challenge.
    if not any(found):
        raise Malformed("request.expected_user_data is zero, which proves no freshness")
    return found


def _completed(asked: Asked, policy: Policy, gather: Gather) -> Kept:
    """Add what the vendor publishes; evidence that fails on the way is judged as it is, and fails again."""
    try:
        members = gather(asked.kept, terms_of(asked.kept, policy, asked.challenge))
    except Judged:
        return asked.kept
    return replace(asked.kept, collateral=dict(members))


def _body() -> bytes:
    # One more than is allowed, because a stream that ends at its limit looks like a body that does.
    request.max_content_length = MAX_BODY + 1
    found = request.get_data(cache=False)
    if len(found) > MAX_BODY:
        raise RequestEntityTooLarge
    return found


def _json(document: Mapping[str, object]) -> Response:
    return _send((json.dumps(document) + "\n").encode())


def _send(body: bytes) -> Response:
    return Response(body, content_type="application/json")


def _add_headers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response
