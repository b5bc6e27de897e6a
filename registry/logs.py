"""Log lines: one JSON object each on stderr; the message is an event name, the facts are fields."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime

from gunicorn.glogging import Logger

from quotary.errors import QuotaryError

OURS = "registry"
log = logging.getLogger(OURS)

_USUAL = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "taskName"}


class JSONLines(logging.Formatter):
    """Writes a record and its extra fields as one line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname, **_event(record)}
        line.update({name: value for name, value in vars(record).items() if name not in _USUAL})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _event(record: logging.LogRecord) -> dict[str, object]:
    """Name the event; what a library says is free text, and stands in a field."""
    if record.name == OURS:
        return {"event": record.getMessage()}
    return {"event": "library.message", "library": record.name, "text": record.getMessage()}


def set_up() -> None:
    """Send the log of this process to stderr, with everything that Python would print there by itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: log.error("process.failed", exc_info=error)
    threading.excepthook = lambda found: log.error("thread.failed", exc_info=found.exc_value)
    sys.unraisablehook = lambda found: log.error("object.failed", exc_info=found.exc_value)


def last_words(error: QuotaryError) -> None:
    """Say why this process ends."""
    why = {"why": str(error), "kind": type(error).__name__, "next": error.next_command}
    log.error("process.ended", extra=why)


class GunicornLines(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Has gunicorn's own messages go where ours go."""

    def setup(self, cfg: object) -> None:
        """Undo the handlers that gunicorn makes."""
        super().setup(cfg)
        set_up()
        for found in (self.error_log, self.access_log):
            found.handlers[:] = []
            found.propagate = True
