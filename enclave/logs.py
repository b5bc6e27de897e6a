"""Where events go, and how everything else is kept from going anywhere.

Our own events are JSON lines on stderr. In the process that sees prompts, standard output and error lead
nowhere besides: a library's warning, a traceback and a ``print`` may quote what they were given. No memory
is written to a core file.
"""

import ctypes
import json
import logging
import os
import resource
from typing import TextIO

from enclave.events import facts
from quotary.errors import CannotTell

_SET_DUMPABLE = 4  # prctl(2)


class JSONLines(logging.Formatter):
    """Writes the event that a record carries, and nothing of the record itself."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(facts(vars(record)["told"]))


def start_logging(stream: TextIO | None = None) -> None:
    """Let events, and nothing else, be written to what is standard error now."""
    handler = logging.StreamHandler(stream or os.fdopen(os.dup(2), "w", buffering=1))
    handler.setFormatter(JSONLines())
    handler.addFilter(lambda record: "told" in vars(record))
    ours = logging.getLogger("enclave")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False
    logging.getLogger().setLevel(logging.CRITICAL + 1)


def silence() -> None:
    """Lead standard output and error of this process nowhere; events go on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def forbid_dumps() -> None:
    """Have the kernel write no core file of this process and its children, wherever cores are sent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0):
        raise CannotTell(f"core dumps cannot be forbidden: {os.strerror(ctypes.get_errno())}")
