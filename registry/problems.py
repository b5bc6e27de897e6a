"""Every error as an RFC 9457 problem document; the only place that maps exceptions to HTTP.

A type is a page, ``/problems/<name>``, that says what to do. A 500 tells nothing but its ``request_id``.
"""

import logging
import secrets
from dataclasses import dataclass, field

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from quotary.errors import CannotTell, Malformed, NotAuthorised, QuotaryError, Unsupported, Usage
from registry.errors import (
    Busy,
    CollateralMissing,
    EvidenceRefused,
    FlushFailed,
    LogEnded,
    NotAdmitted,
    NotFound,
    NotPublished,
    ReservedRecord,
    SignerRefused,
    SignerUnavailable,
    StoreFull,
    StoreUnavailable,
    TooLarge,
)

log = logging.getLogger("registry")

MEDIA_TYPE = "application/problem+json"
UNAVAILABLE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """One problem type.

    name:   last part of ``/problems/<name>``
    advice: what the caller can do
    """

    name: str
    status: int
    title: str
    advice: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, ready to be sent."""

    kind: Kind
    detail: str
    more: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class Told(QuotaryError):
    """A problem that another process of the registry found."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "malformed", 400, "The request is not what it should be", "Compare it with docs/formats/api.md."
        ),
        Kind(
            "not-authorised", 403, "The key is genuine and may not do this", "Ask the log's roots or owners."
        ),
        Kind(
            "not-admitted",
            403,
            "The entry would have no effect now",
            "The member code names the reason (docs/formats/f1.md). Correct the statement and sign it again.",
        ),
        Kind("reserved", 403, "Only the log itself makes reserved records", "Submit a signed statement."),
        Kind(
            "log-ended",
            410,
            "The log takes no entries any more",
            "Its roots have frozen or closed it: the order that says so, and a successor if there is one, "
            "stands right before its last entry.",
        ),
        Kind("not-found", 404, "Nothing public has this name", "Look for it with /api/v1/search."),
        Kind(
            "not-yet-published",
            404,
            "The log has not grown that far",
            "Try again when /checkpoint covers it; the member size says how far the published log goes.",
        ),
        Kind(
            "method-not-allowed", 405, "The resource does not do this", "The header Allow says what it does."
        ),
        Kind("too-large", 413, "The body is too large", "The member limit is the largest body in bytes."),
        Kind(
            "unsupported",
            415,
            "This registry does not know this kind",
            "See /openapi.json for what it knows.",
        ),
        Kind(
            "evidence-refused",
            422,
            "The evidence does not hold",
            "The members check, found and wanted say what failed; docs/evidence.md explains each check.",
        ),
        Kind(
            "collateral-missing",
            422,
            "The vendor's documents are missing",
            "Send them as the member collateral, as quotary quote verify --fetch --keep writes them.",
        ),
        Kind("busy", 429, "Too many entries wait", "Send the same bytes again after Retry-After seconds."),
        Kind("http", 400, "The request cannot be answered", "The status says more."),
        Kind(
            "internal", 500, "Our mistake", "Report the member request_id; send the same bytes again later."
        ),
        Kind(
            "unavailable",
            503,
            "A part of the registry does not answer",
            "Send the same bytes again later: a repeated submission is answered with the first one's place.",
        ),
        Kind(
            "full",
            507,
            "The disk is full",
            "Nothing was written. Reads still work; send the bytes again later.",
        ),
    )
}


def of(error: QuotaryError) -> Problem:
    """Give the problem that an exception of ours means; the first match decides."""
    if isinstance(error, Told):
        return error.problem
    for kind, name in _TYPES:
        if isinstance(error, kind):
            return Problem(KINDS[name], str(error), _members(error), _headers(error, KINDS[name]))
    return Problem(KINDS["internal"], "")


def answer(problem: Problem, status: int | None = None) -> Response:
    """Write a problem as a response; errors are never cached."""
    document = {**members(problem, status), "instance": request.path}
    headers = {"Cache-Control": "no-store", **problem.headers}
    code = status or problem.kind.status
    return Response(json.dumps(document) + "\n", code, headers, content_type=MEDIA_TYPE)


def members(problem: Problem, status: int | None = None) -> dict[str, object]:
    """Give a problem's members."""
    return {
        "type": f"/problems/{problem.kind.name}",
        "title": problem.kind.title,
        "status": status or problem.kind.status,
        "detail": problem.detail,
        **problem.more,
    }


def register(app: Flask) -> None:
    """Answer every error of ``app`` with a problem, and serve the pages that the types name."""
    app.register_error_handler(QuotaryError, _on_ours)
    app.register_error_handler(HTTPException, _on_http)
    app.register_error_handler(Exception, _on_bug)
    app.add_url_rule("/problems/<name>", "problem", _page, methods=["GET"])


def _on_ours(error: QuotaryError) -> Response:
    problem = of(error)
    if problem.kind.status >= 500:
        log.error(
            "request.failed", extra={"problem": problem.kind.name, "detail": str(error), "path": request.path}
        )
    return _on_bug(error) if problem.kind.name == "internal" else answer(problem)


def _on_http(error: HTTPException) -> Response:
    code = error.code or 500
    name = _BY_STATUS.get(code, "http")
    allowed = getattr(error, "valid_methods", None)
    headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
    if error.response is not None and code < 400:
        raise error  # a redirect is not an error
    return answer(
        Problem(KINDS[name], _DETAILS.get(code, "the request cannot be answered"), headers=headers), code
    )


def _on_bug(error: Exception) -> Response:
    request_id = secrets.token_hex(8)
    log.error("request.failed", extra={"request_id": request_id, "path": request.path}, exc_info=error)
    return answer(Problem(KINDS["internal"], "see the registry's own log", {"request_id": request_id}))


def _page(name: str) -> Response:
    kind = KINDS.get(name)
    if kind is None:
        raise NotFound(f"no problem type is called {name[:100]}")
    text = f"{kind.title}\n\nstatus: {kind.status}\n\n{kind.advice}\n"
    return Response(text, content_type="text/plain; charset=utf-8")


def _members(error: QuotaryError) -> dict[str, object]:
    found = {name: getattr(error, name, None) for name in _TOLD}
    return {name: value for name, value in found.items() if value is not None}


def _headers(error: QuotaryError, kind: Kind) -> dict[str, str]:
    if isinstance(error, Busy):
        return {"Retry-After": str(error.retry_seconds)}
    return {"Retry-After": str(UNAVAILABLE_SECONDS)} if kind.status == 503 else {}


_TOLD = ("size", "code", "limit", "check", "found", "wanted")
_TYPES: tuple[tuple[type[QuotaryError], str], ...] = (
    (NotAdmitted, "not-admitted"),
    (ReservedRecord, "reserved"),
    (LogEnded, "log-ended"),
    (NotAuthorised, "not-authorised"),
    (NotFound, "not-found"),
    (NotPublished, "not-yet-published"),
    (TooLarge, "too-large"),
    (Malformed, "malformed"),
    (Usage, "malformed"),
    (Unsupported, "unsupported"),
    (Busy, "busy"),
    (EvidenceRefused, "evidence-refused"),
    (CollateralMissing, "collateral-missing"),
    (StoreFull, "full"),
    (FlushFailed, "unavailable"),
    (StoreUnavailable, "unavailable"),
    (SignerUnavailable, "unavailable"),
    (SignerRefused, "unavailable"),
    (CannotTell, "unavailable"),
)
_DETAILS = {
    404: "no resource has this address",
    405: "the resource does not have this method",
    413: "the body is longer than this resource takes",
    500: "see the registry's own log",
}
_BY_STATUS = {
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported",
    429: "busy",
    500: "internal",
    503: "unavailable",
}
