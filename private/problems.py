"""What the services answer when they have no answer: RFC 9457 problem documents, each type a page."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from quotary.errors import (
    CannotTell,
    Malformed,
    NotAuthorised,
    NotInLog,
    QuotaryError,
    Refused,
    Rejected,
    Unsupported,
)

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger("private")


@dataclass(frozen=True, slots=True)
class Kind:
    """One problem type; ``advice`` is what the caller can do."""

    status: int
    title: str
    advice: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed": Kind(
            400, "The request is not what it should be", "Compare it with docs/formats/oblivious.md."
        ),
        "not-authorised": Kind(401, "The credential is not one that counts", "Send the one you were given."),
        "refused": Kind(
            403,
            "What was asked is not allowed",
            "The detail names the check, docs/formats/kms.md has them.",
        ),
        "not-found": Kind(404, "Nothing has this address", "docs/formats/oblivious.md lists the resources."),
        "method-not-allowed": Kind(
            405, "The resource does not do this", "The header Allow says what it does."
        ),
        "too-large": Kind(
            413, "The body is too large", "Capsules are at most 1.25 MiB, token requests 259 bytes."
        ),
        "unsupported": Kind(
            415, "This media type is not taken", "docs/formats/oblivious.md lists those that are."
        ),
        "rejected": Kind(422, "The request does not fit the keys in use", "Fetch the directory again."),
        "spent": Kind(
            429, "There is nothing left for this credential", "The header Retry-After says when there is."
        ),
        "http": Kind(400, "The request cannot be answered", "The status says more."),
        "internal": Kind(500, "Our mistake", "Report the member request_id."),
        "gateway": Kind(502, "The gateway gave no answer that can be passed on", "Ask another instance."),
    }
)
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported", 429: "spent"}
_BY_ERROR: tuple[tuple[type[QuotaryError], str], ...] = (
    (Malformed, "malformed"),
    (Unsupported, "unsupported"),
    (NotAuthorised, "not-authorised"),
    (Rejected, "rejected"),
    (Refused, "refused"),
    (NotInLog, "refused"),
    (CannotTell, "gateway"),
)


def register(app: Flask) -> None:
    """Answer every error of ``app`` with a problem, and serve the pages that the types name."""
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.register_error_handler(Exception, _answer)
    app.add_url_rule("/problems/<name>", "problem", _page, methods=["GET"])
    app.after_request(_add_headers)


def problem(name: str, detail: str, status: int | None = None, **headers: str) -> Response:
    """Make a problem document of a kind; ``status`` where it is not the kind's own."""
    kind = KINDS[name]
    status = status or kind.status
    document = {"type": f"/problems/{name}", "title": kind.title, "status": status, "detail": detail}
    body = json.dumps({**document, "instance": request.path}) + "\n"
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Response(body, status, named, content_type=MEDIA_TYPE)


def _answer(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        status = error.code or 500
        allowed = getattr(error, "valid_methods", None)
        headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
        return problem(_BY_STATUS.get(status, "http"), error.name.lower(), status, **headers)
    name = next((name for kind, name in _BY_ERROR if isinstance(error, kind)), "internal")
    if name != "internal":
        return problem(name, str(error))
    request_id = secrets.token_hex(8)
    # Neither the path nor the error's text: both can hold what a client sent.
    log.error("request.failed", extra={"request_id": request_id, "error": type(error).__name__})
    return problem(name, f"see the service's own log for {request_id}")


def _page(name: str) -> Response:
    kind = KINDS.get(name)
    if kind is None:
        return problem("not-found", "no problem type has this name")
    text = f"{kind.title}\n\nstatus: {kind.status}\n\n{kind.advice}\n"
    return Response(text, content_type="text/plain; charset=utf-8")


def _add_headers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
