"""What the processes of a registry say: one JSON object a line, of one shape, and never a secret."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.logs import JSONLines
from tests.conftest import ROOT
from tests.fakes.authority import ORIGIN
from tests.fakes.processes import Log, command, start_log, until

CANARY = "canary-7f3a91"


def check_shape(text: str) -> list[dict[str, object]]:
    found = []
    for line in text.splitlines():
        document = json.loads(line)
        assert {"at", "level", "event"} <= set(document), line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", document["at"]), line
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", document["event"]), line
        found.append(document)
    return found


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    found = start_log(tmp_path_factory.mktemp("log"))
    yield found
    found.stop()


def secrets(log: Log) -> list[str]:
    pems = [*(log.folder / "keys").glob("*.pem"), *log.folder.parent.glob("witness/*.pem")]
    lines = [line for path in pems for line in path.read_text("ascii").splitlines() if "-----" not in line]
    assert len(lines) >= 4
    return lines


def test_a26_every_line_of_a_journey_is_json_and_holds_no_secret(log: Log) -> None:
    made = log.authority
    log.submit(made.allocation(), made.delegation())
    marked = {"Authorization": f"Bearer {CANARY}", "Cookie": CANARY, "X-Real-IP": CANARY}
    for body in (CANARY.encode(), json.dumps({"payload": CANARY}).encode(), b"\xff" + CANARY.encode()):
        assert log.request("POST", "/api/v1/entries", body, marked).status == 400
        assert log.request("POST", "/api/v1/batches", body, marked).status == 200
    for path in ("/nowhere", "/api/v1/entries/99", f"/api/v1/search?q={CANARY}"):
        log.request("GET", path, headers=marked)
    log.request("POST", "/checkpoint", CANARY.encode(), marked)
    for verb in ("sign", "sequence"):
        (pid,) = log.registry.children(verb)
        log.registry.kill_child(verb)
        until(
            lambda verb=verb, pid=pid: log.registry.children(verb) not in ([], [pid]), "it is started again"
        )
    log.publish(made.release("r1"))
    assert command("reload", "--dir", str(log.folder)).returncode == 0
    log.http.clear()
    assert log.registry.stop() == 0
    lines = check_shape(log.registry.log()) + check_shape(log.witness.log())
    assert {"child.ended", "registry.reloaded", "signer.signed", "registry.stopping"} <= {
        str(line["event"]) for line in lines
    }
    text = log.registry.log() + log.witness.log()
    assert not [secret for secret in [CANARY, *secrets(log)] if secret in text]


def test_a_service_that_ends_says_why_in_its_log(tmp_path: Path) -> None:
    folder = str(tmp_path / "log")
    assert command("init", "--dir", folder, "--origin", ORIGIN).returncode == 0
    (tmp_path / "log" / "keys" / "signed-head.json").unlink()
    done = command("sign", "--dir", folder)
    (line,) = check_shape(done.stderr)
    assert (done.returncode, line["event"], line["kind"]) == (40, "process.ended", "CannotTell")
    assert "restore it beside the keys" in str(line["next"])


ODD = """
import logging, threading, warnings
from registry import logs
logs.set_up()
def fail():
    raise RuntimeError("odd")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
warnings.warn("careful")
logging.getLogger("gunicorn.error").warning("Worker (pid:%s) was sent SIGKILL!", 7)
class Odd:
    def __del__(self):
        fail()
Odd()
fail()
"""


def test_what_python_prints_by_itself_becomes_a_line_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ODD], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    found = check_shape(done.stderr)
    assert [(line["event"], line.get("library")) for line in found] == [
        ("thread.failed", None),
        ("library.message", "py.warnings"),
        ("library.message", "gunicorn.error"),
        ("object.failed", None),
        ("process.failed", None),
    ]
    assert "RuntimeError: odd" in str(found[0]["exception"])
    assert found[2]["text"] == "Worker (pid:7) was sent SIGKILL!"
    assert done.returncode == 1


def test_a_field_that_is_no_json_is_written_as_text() -> None:
    record = logging.LogRecord("registry", logging.INFO, "", 0, "a.b", (), None)
    record.path = Path("/x")
    assert json.loads(JSONLines().format(record))["path"] == "/x"
