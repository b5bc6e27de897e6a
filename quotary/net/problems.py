"""What a small service of ours answers when it has no answer: RFC 9457 problem documents, each type a page.

Each service has kinds of its own; what the registry answers is in ``registry.problems``.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from quotary.errors import QuotaryError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One problem type; ``advice`` is what the caller can do."""

    status: int
    title: str
    advice: str


@dataclass(frozen=True, slots=True)
class Problems:
    """The problems of one service.

    name:      of its log
    kinds:     by name; ``not-found``, ``http`` and ``internal`` are among them
    by_status: which kind an HTTP error is, ``http`` where it is none of these
    by_error:  which kind an error of ours is, the first that fits, else ``internal``
    traceback: whether its log may hold the traceback of our mistakes, in which requests can be quoted
    """

    name: str
    kinds: Mapping[str, Kind]
    by_status: Mapping[int, str]
    by_error: Sequence[tuple[type[QuotaryError], str]]
    traceback: bool

    def register(self, app: Flask) -> None:
        """Answer every error of ``app`` with a problem, and serve the pages that the types name."""
        app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        app.register_error_handler(Exception, self._answer)
        app.add_url_rule("/problems/<name>", "problem", self._page, methods=["GET"])
        app.after_request(_add_headers)

    def problem(self, name: str, detail: str, status: int | None = None, **headers: str) -> Response:
        """Make a problem document of a kind; ``status`` where it is not the kind's own."""
        return self._made(
            name, detail, status, {key.replace("_", "-"): value for key, value in headers.items()}
        )

    def _made(
        self, name: str, detail: str, status: int | None, headers: Mapping[str, str], **more: str
    ) -> Response:
        kind = self.kinds[name]
        status = status or kind.status
        document = {"type": f"/problems/{name}", "title": kind.title, "status": status, "detail": detail}
        body = json.dumps({**document, "instance": request.path, **more}) + "\n"
        return Response(body, status, headers, content_type=MEDIA_TYPE)

    def _answer(self, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            status = error.code or 500
            allowed = getattr(error, "valid_methods", None)
            headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
            return self._made(self.by_status.get(status, "http"), error.name.lower(), status, headers)
        name = next((name for kind, name in self.by_error if isinstance(error, kind)), "internal")
        if name != "internal":
            return self._made(name, str(error), None, {})
        request_id = secrets.token_hex(8)
        logging.getLogger(self.name).error(
            "request.failed",
            extra={"request_id": request_id, "error": type(error).__name__},
            exc_info=error if self.traceback else None,
        )
        return self._made(
            name, f"see the service's own log for {request_id}", None, {}, request_id=request_id
        )

    def _page(self, name: str) -> Response:
        kind = self.kinds.get(name)
        if kind is None:
            return self._made("not-found", "no problem type has this name", None, {})
        text = f"{kind.title}\n\nstatus: {kind.status}\n\n{kind.advice}\n"
        return Response(text, content_type="text/plain; charset=utf-8")


def _add_headers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
