"""Log lines as JSON on stderr: an event name and its facts; never a prompt, a key or a body."""

import json
import logging
import sys

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONLines(logging.Formatter):
    """Writes a record's event name, level and extra fields. A traceback quotes values, so only its
    type is written.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "event": record.getMessage(),
            "level": record.levelname,
            "logger": record.name,
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, default=str)


def start_logging() -> None:
    """Log our own events only; other libraries' messages may quote what they were given."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    ours = logging.getLogger("enclave")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False
    logging.getLogger().setLevel(logging.CRITICAL + 1)
