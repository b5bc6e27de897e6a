"""What leaves a serving enclave besides its answers: typed events, and nothing that could hold a text."""

import ast
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from enclave import events
from enclave.lifecycle import Phase
from enclave.logs import start_logging
from tests.conftest import ROOT

KINDS = get_args(events.Event)
# The command before and after serving, and the two modules that are the way out.
SPEAKS = {"cli.py", "detect.py"}
WAY_OUT = {"events.py", "logs.py"}


def modules() -> list[Path]:
    return sorted((ROOT / "enclave").rglob("*.py"))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def test_no_member_of_an_event_can_hold_a_text() -> None:
    members = [(kind, name, hint) for kind in KINDS for name, hint in get_type_hints(kind).items()]
    members = [(kind, name, hint) for kind, name, hint in members if name not in ("event", "level")]
    assert len(members) >= 10
    for kind, name, hint in members:
        closed = isinstance(hint, type) and issubclass(hint, int | float | Enum)
        assert closed or hint == type[BaseException], f"{kind.__name__}.{name}"


def test_every_event_that_is_written_is_one_of_these(capsys: pytest.CaptureFixture[str]) -> None:
    names, found = {kind.__name__ for kind in KINDS}, []
    for path in (path for path in modules() if path.name not in SPEAKS):
        for call in calls(path):
            if ast.unparse(call.func) in ("emit", "events.emit"):
                (made,) = call.args
                assert isinstance(made, ast.Call), f"{path.name}:{call.lineno}"
                found.append(ast.unparse(made.func).rpartition(".")[2])
    with capsys.disabled():
        print(f"\nevents: {len(found)} places write {len(names)} kinds")
    assert set(found) == names


def test_nothing_else_in_the_enclave_writes_anything() -> None:
    """No logger, no print, no warning and no stream outside the two modules of the way out."""
    seen = 0
    for path in modules():
        if path.name in WAY_OUT:
            continue
        tree = ast.parse(path.read_text())
        imported = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        assert not imported & {"logging", "warnings", "traceback", "faulthandler"}, path
        for call in calls(path):
            name = ast.unparse(call.func)
            seen += 1
            assert name != "print", f"{path}:{call.lineno}"
            assert not name.startswith(("log.", "logger.", "sys.stderr", "sys.stdout")), (
                f"{path}:{call.lineno}"
            )
            assert name != "click.echo" or path.name in SPEAKS, f"{path}:{call.lineno}"
    assert seen > 500


def test_a_line_is_the_event_and_nothing_else_is_written() -> None:
    lines = io.StringIO()
    logger, before = logging.getLogger("enclave"), logging.getLogger("enclave").handlers
    level, root = logger.level, logging.getLogger().level
    start_logging(lines)
    try:
        events.emit(events.APIFailed(ValueError))
        events.emit(events.LifecycleChanged(Phase.STALE, events.Step.NONE, events.Why.LOG_STALE))
        events.emit(events.BootChecked(0.12345, 1.0, 2.0))
        logging.getLogger("enclave.api").error("the prompt was secret", extra={"prompt": "secret"})
        logging.getLogger("gunicorn.error").error("secret")
        try:
            raise ValueError("the prompt was secret")
        except ValueError:
            logging.getLogger("enclave.engine").exception("secret")
    finally:
        logger.handlers, logger.propagate = before, True
        logger.setLevel(level)
        logging.getLogger().setLevel(root)
    assert [json.loads(line) for line in lines.getvalue().splitlines()] == [
        {"event": "api.failed", "level": "ERROR", "error": "ValueError"},
        {"event": "lifecycle.changed", "level": "WARNING", "phase": "stale", "step": "", "code": "log_stale"},
        {
            "event": "boot.checked",
            "level": "INFO",
            "quote_seconds": 0.123,
            "fetch_seconds": 1.0,
            "judge_seconds": 2.0,
        },
    ]


def test_a_clients_number_is_rounded_and_an_unknown_word_is_other() -> None:
    assert [events.bucket(count) for count in (0, 1, 2, 3, 1000, 1024, 1025)] == [
        0,
        1,
        2,
        4,
        1024,
        1024,
        2048,
    ]
    assert events.word(events.Why, "log_stale") is events.Why.LOG_STALE
    assert events.word(events.Why, "the prompt was secret") is events.Why.OTHER


SERVING = """
import os, sys, threading, warnings
from enclave import events, logs
logs.forbid_dumps()
logs.start_logging()
logs.silence()
print("secret"); print("secret", file=sys.stderr); os.write(1, b"secret"); os.write(2, b"secret")
warnings.warn("secret")
thread = threading.Thread(target=lambda: 1 / "secret"); thread.start(); thread.join()
events.emit(events.ModelFailed(ZeroDivisionError))
os.abort()
"""


def test_prints_warnings_tracebacks_and_crashes_of_the_serving_process_go_nowhere(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SERVING]
    done = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -6
    assert done.stdout == ""
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["model.failed"]
    assert list(tmp_path.iterdir()) == []


def test_no_core_file_can_be_written_of_the_serving_process(tmp_path: Path) -> None:
    code = "import ctypes, resource\nfrom enclave.logs import forbid_dumps\nforbid_dumps()\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "(0, 0) 0\n"
