"""What the verifier answers when it has no verdict: RFC 9457 problem documents, each type a page."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from quotary.errors import CannotTell, Malformed, QuotaryError, Unsupported

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger("verifier")


@dataclass(frozen=True, slots=True)
class Kind:
    """One problem type; ``advice`` is what the caller can do."""

    status: int
    title: str
    advice: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed": Kind(
            400, "The request is not what it should be", "Compare it with docs/formats/verifier.md."
        ),
        "not-found": Kind(404, "Nothing has this address", "POST to /api/verify/tee-attestation."),
        "method-not-allowed": Kind(
            405, "The resource does not do this", "The header Allow says what it does."
        ),
        "too-large": Kind(413, "The body is too large", "At most 2 MiB are read."),
        "unsupported": Kind(415, "This kind of evidence is not judged", "See docs/evidence.md for what is."),
        "http": Kind(400, "The request cannot be answered", "The status says more."),
        "internal": Kind(500, "Our mistake", "Report the member request_id."),
        "unavailable": Kind(
            503,
            "It could not be found out",
            "The vendor's documents are missing: send them as the member collateral, or ask again later.",
        ),
    }
)
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported"}
_BY_ERROR: tuple[tuple[type[QuotaryError], str], ...] = (
    (Malformed, "malformed"),
    (Unsupported, "unsupported"),
    (CannotTell, "unavailable"),
)


def register(app: Flask) -> None:
    """Answer every error of ``app`` with a problem, and serve the pages that the types name."""
    app.register_error_handler(Exception, _answer)
    app.add_url_rule("/problems/<name>", "problem", _page, methods=["GET"])


def _answer(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        status = error.code or 500
        allowed = getattr(error, "valid_methods", None)
        headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
        return _problem(_BY_STATUS.get(status, "http"), error.name.lower(), status, headers)
    name = next((name for kind, name in _BY_ERROR if isinstance(error, kind)), "internal")
    if name != "internal":
        return _problem(name, str(error), KINDS[name].status, {})
    request_id = secrets.token_hex(8)
    log.error("request.failed", extra={"request_id": request_id, "path": request.path}, exc_info=error)
    return _problem(name, "see the verifier's own log", 500, {}, request_id=request_id)


def _problem(name: str, detail: str, status: int, headers: Mapping[str, str], **more: str) -> Response:
    document = {"type": f"/problems/{name}", "title": KINDS[name].title, "status": status, "detail": detail}
    body = json.dumps({**document, "instance": request.path, **more}) + "\n"
    return Response(body, status, {"Cache-Control": "no-store", **headers}, content_type=MEDIA_TYPE)


def _page(name: str) -> Response:
    kind = KINDS.get(name)
    if kind is None:
        return _problem("not-found", "no problem type has this name", 404, {})
    text = f"{kind.title}\n\nstatus: {kind.status}\n\n{kind.advice}\n"
    return Response(text, content_type="text/plain; charset=utf-8")
