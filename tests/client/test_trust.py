"""The memory of accepted checkpoints: no way back, no second tree, and proof kept of whoever tries."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.client.trust import Accepted, FileMemory, Memory, ProcessMemory, least_time, successor
from quotary.errors import CannotTell, Malformed, Refused

NOW = 1_795_233_600
FIRST = Accepted("log.example.org/simulation", 10, b"\x0a" * 32, b"note of ten\n", NOW, 100.0)


@pytest.fixture(params=["process", "file"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Memory:
    return ProcessMemory() if request.param == "process" else FileMemory(tmp_path / "trust")


def test_a_log_never_seen_is_unknown(memory: Memory) -> None:
    assert memory.newest(FIRST.origin) is None


def test_a_larger_checkpoint_replaces_a_smaller_one(memory: Memory) -> None:
    later = replace(FIRST, size=11, root=b"\x0b" * 32, quorum_at=NOW + 60, elapsed=160.0)
    memory.accept(FIRST)
    memory.accept(later)
    assert memory.newest(FIRST.origin) == later


def test_a_smaller_checkpoint_is_refused_and_forgotten(memory: Memory) -> None:
    memory.accept(FIRST)
    with pytest.raises(Refused, match="found 9 entries, wanted at least the 10 accepted before") as refused:
        memory.accept(replace(FIRST, size=9, root=b"\x09" * 32, quorum_at=NOW + 60))
    assert refused.value.check == "rollback"
    assert memory.newest(FIRST.origin) == FIRST


def test_another_tree_of_the_same_size_is_refused(memory: Memory) -> None:
    memory.accept(FIRST)
    with pytest.raises(Refused, match="the log has forked"):
        memory.accept(replace(FIRST, root=b"\xff" * 32, note=b"other note of ten\n"))
    assert memory.newest(FIRST.origin) == FIRST


def test_the_same_checkpoint_again_changes_nothing(memory: Memory) -> None:
    memory.accept(FIRST)
    memory.accept(replace(FIRST, elapsed=100.0))
    assert memory.newest(FIRST.origin) == FIRST


def test_fresher_cosignatures_at_the_same_size_are_remembered(memory: Memory) -> None:
    fresher = replace(FIRST, note=b"note of ten, cosigned again\n", quorum_at=NOW + 120, elapsed=220.0)
    memory.accept(FIRST)
    memory.accept(fresher)
    assert memory.newest(FIRST.origin) == fresher


def test_logs_are_remembered_apart(memory: Memory) -> None:
    other = replace(FIRST, origin="other.example.org/simulation", size=3)
    memory.accept(FIRST)
    memory.accept(other)
    assert memory.newest(FIRST.origin) == FIRST
    assert memory.newest(other.origin) == other


def test_time_passes_for_the_remembered_moment() -> None:
    assert least_time(FIRST, 130.9) == NOW + 30
    assert least_time(FIRST, 90.0) == NOW
    assert least_time(FIRST, None) == NOW
    assert least_time(replace(FIRST, elapsed=None), 130.0) == NOW


def test_a_stale_cosignature_does_not_set_the_time_back() -> None:
    stale = replace(FIRST, size=12, root=b"\x0c" * 32, quorum_at=NOW + 10, elapsed=200.0)
    found = successor(FIRST, stale)
    assert (found.size, found.root, found.note) == (12, stale.root, stale.note)
    assert (found.quorum_at, found.elapsed) == (NOW, 100.0)
    assert successor(FIRST, replace(stale, size=10, root=FIRST.root, note=b"older note\n")) == FIRST


def test_a_moment_that_another_process_saw_starts_to_pass_when_it_is_seen_again() -> None:
    stored = replace(FIRST, elapsed=None)
    assert successor(stored, FIRST).elapsed == 100.0


def test_a_file_is_private_and_survives_its_process(tmp_path: Path) -> None:
    FileMemory(tmp_path / "trust").accept(FIRST)
    [path] = (tmp_path / "trust").glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "trust").stat().st_mode) == 0o700
    again = FileMemory(tmp_path / "trust")
    assert again.newest(FIRST.origin) == replace(FIRST, elapsed=None)
    assert again.all() == (replace(FIRST, elapsed=None),)
    with pytest.raises(Refused):
        again.accept(replace(FIRST, size=9))


def test_what_another_process_accepted_meanwhile_counts(tmp_path: Path) -> None:
    here, elsewhere = FileMemory(tmp_path), FileMemory(tmp_path)
    here.accept(FIRST)
    later = replace(FIRST, size=12, root=b"\x0c" * 32, quorum_at=NOW + 60)
    elsewhere.accept(later)
    assert here.newest(FIRST.origin) == replace(later, elapsed=None)
    with pytest.raises(Refused):
        here.accept(replace(FIRST, size=11))


def test_both_notes_of_a_fork_are_kept_as_evidence(tmp_path: Path) -> None:
    memory = FileMemory(tmp_path)
    memory.accept(FIRST)
    assert memory.evidence() == ()
    with pytest.raises(Refused):
        memory.accept(replace(FIRST, root=b"\xff" * 32, note=b"other note of ten\n"))
    assert {path.read_bytes() for path in memory.evidence()} == {FIRST.note, b"other note of ten\n"}


def test_a_smaller_checkpoint_alone_is_no_evidence_of_a_fork(tmp_path: Path) -> None:
    memory = FileMemory(tmp_path)
    memory.accept(FIRST)
    with pytest.raises(Refused):
        memory.accept(replace(FIRST, size=9))
    assert memory.evidence() == ()


def test_a_damaged_file_is_an_alarm_and_not_a_fresh_start(tmp_path: Path) -> None:
    memory = FileMemory(tmp_path)
    memory.accept(FIRST)
    [path] = tmp_path.glob("*.json")
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(Malformed, match="is damaged"):
            memory.newest(FIRST.origin)


def test_a_file_under_another_logs_name_is_refused(tmp_path: Path) -> None:
    memory = FileMemory(tmp_path)
    memory.accept(FIRST)
    memory.accept(replace(FIRST, origin="other.example.org/simulation"))
    one, two = tmp_path.glob("*.json")
    one.write_bytes(two.read_bytes())
    with pytest.raises(Malformed, match="is about the log"):
        [memory.newest(origin) for origin in (FIRST.origin, "other.example.org/simulation")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotTell, match="cannot write the trust folder"):
        FileMemory(tmp_path / "file" / "trust").accept(FIRST)


def test_files_that_cannot_be_written_or_read_are_named(tmp_path: Path) -> None:
    memory = FileMemory(tmp_path)
    memory.accept(FIRST)
    [path] = tmp_path.glob("*.json")
    path.unlink()
    path.mkdir()
    with pytest.raises(CannotTell, match="cannot read"):
        memory.newest(FIRST.origin)
    (tmp_path / "evidence").mkdir()
    other = FileMemory(tmp_path / "second")
    other.accept(FIRST)
    [path] = (tmp_path / "second").glob("*.json")
    path.unlink()
    path.mkdir()
    with pytest.raises(CannotTell, match="cannot write"):
        other._store(FIRST)


def test_nothing_larger_is_accepted_of_a_log_that_has_ended(memory: Memory, tmp_path: Path) -> None:
    memory.accept(FIRST)
    memory.end(FIRST.origin)
    with pytest.raises(Refused, match="found 11 entries, wanted the 10 with which the log ended") as refused:
        memory.accept(replace(FIRST, size=11, root=b"\x0b" * 32, quorum_at=NOW + 60, note=b"of eleven\n"))
    assert refused.value.check == "rollback"
    fresher = replace(FIRST, quorum_at=NOW + 60, elapsed=160.0, note=b"note of ten, cosigned again\n")
    memory.accept(fresher)
    assert memory.newest(FIRST.origin) == replace(fresher, final=True)
    memory.end(FIRST.origin)
    if isinstance(memory, FileMemory):
        again = FileMemory(tmp_path / "trust")
        assert [found.final for found in again.all()] == [True]
        with pytest.raises(Refused, match="with which the log ended"):
            again.accept(replace(FIRST, size=12))
        assert {path.name.split("-")[1] for path in memory.evidence()} == {"10", "11", "12"}
