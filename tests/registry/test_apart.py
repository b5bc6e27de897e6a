"""What the network reaches can look into no other process of its user."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.apart import can_be_kept_apart, keep_apart
from registry.seal import new_key
from tests.fakes.processes import Log, start_log

pytestmark = pytest.mark.skipif(not can_be_kept_apart(), reason="this kernel has no Landlock")


def look(place: str, before: Callable[[], None] | None) -> subprocess.CompletedProcess[str]:
    """Have a process of the same user read a file of this one's."""
    words = [sys.executable, "-c", f"print(len(open({place!r}, 'rb').read()))"]
    return subprocess.run(words, preexec_fn=before, capture_output=True, text=True, timeout=60)


def test_the_seals_key_is_read_by_a_neighbour_and_not_by_one_that_is_kept_apart() -> None:
    with new_key() as descriptor:
        place = f"/proc/{os.getpid()}/fd/{descriptor}"
        assert look(place, None).stdout == "32\n"
        kept = look(place, keep_apart)
    assert kept.stdout == ""
    assert "PermissionError" in kept.stderr


def test_it_opens_its_own_files_as_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert look(str(tmp_path / "file"), keep_apart).stdout == "5\n"
    assert look("/proc/self/maps", keep_apart).returncode == 0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = start_log(tmp_path)
    yield found
    found.stop()


def test_a_registrys_web_workers_are_kept_apart_and_judge_and_sequencer_are_not(log: Log) -> None:
    found = {verb: _held(log, verb) for verb in ("gunicorn", "judge", "sequence", "sign")}
    assert found == {"gunicorn": True, "judge": False, "sequence": False, "sign": False}


def _held(log: Log, verb: str) -> bool:
    """Say whether a child has given up new privileges, the first step into a domain."""
    (pid,) = log.registry.children(verb)
    return "NoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_text("ascii")
