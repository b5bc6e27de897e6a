"""What an auditor keeps between two runs: where he goes on, and what he refuses to go on from."""

import hashlib
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.client.audit import Auditor
from quotary.client.finding import Finding
from quotary.client.replay_store import Progress, ReplayStore
from quotary.client.source import CHECKPOINT, Files
from quotary.errors import CannotTell, Malformed
from tests.client.test_audit import audit, log_of, policy_of, with_state
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.files import MemorySource, files_of, source_of
from tests.fakes.log import FakeLog


@pytest.fixture
def log() -> FakeLog:
    return log_of()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplayStore]:
    with ReplayStore(tmp_path / "store", ORIGIN) as opened:
        yield opened


def test_the_next_run_goes_on_and_reads_only_what_is_new(tmp_path: Path) -> None:
    log = log_of(releases=300)
    with ReplayStore(tmp_path, ORIGIN) as store:
        first = audit(log, store)
    log.append(log.maker.release("later"))
    log.close(TS + 400)
    source = source_of(log)
    with ReplayStore(tmp_path, ORIGIN) as store:
        second = audit(log, store, source)
    assert second.size - first.size == second.fresh == 2
    assert second.outcomes["effective"] == first.outcomes["effective"] + 1
    assert second.checkpoints == 1
    assert [path for path in source.reads if "entries/000" in path] == []


def test_an_audit_that_was_cut_off_goes_on_where_a_batch_ended(tmp_path: Path) -> None:
    log = log_of(releases=600, interval=10_000)
    source = source_of(log)
    cut = MemorySource({path: data for path, data in source.files.items() if "entries/002" not in path})
    with ReplayStore(tmp_path, ORIGIN) as store, pytest.raises(CannotTell):
        audit(log, store, cut)
    with ReplayStore(tmp_path, ORIGIN) as store:
        assert store.progress().frontier.size == 512
        assert audit(log, store, source).fresh == len(log.entries) - 512


def test_the_store_is_private_and_has_one_writer(store: ReplayStore) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    with pytest.raises(CannotTell, match="another audit"):
        ReplayStore(store.path.parent, ORIGIN)


def test_a_store_of_another_log_is_refused(tmp_path: Path) -> None:
    ReplayStore(tmp_path, ORIGIN).close()
    with pytest.raises(Malformed, match="not of log"):
        ReplayStore(tmp_path, "log.example.net/simulation")


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.db").write_bytes(b"x" * 4096)
    with pytest.raises(Malformed, match="damaged"):
        ReplayStore(tmp_path, ORIGIN)


def test_a_store_whose_map_lost_a_status_is_refused(log: FakeLog, store: ReplayStore) -> None:
    audit(log, store)
    progress = store.progress()
    store.save(replace(progress, map_root=hashlib.sha256(b"").digest()))
    with pytest.raises(Malformed, match="damaged"):
        audit(log, store)


def test_f1_is_taken_up_again_as_it_was_left(tmp_path: Path) -> None:
    log = log_of(releases=100)
    for number in range(3):
        log.append(log.maker.release(f"later {number}"), log.maker.release("x", signers=["owner1"]))
        log.close(TS + 200 + number)
        with ReplayStore(tmp_path, ORIGIN) as store:
            found = audit(log, store)
        assert found.outcomes["threshold"] == number + 1


def test_a_store_that_lost_a_delegation_is_refused(log: FakeLog, tmp_path: Path) -> None:
    with ReplayStore(tmp_path, ORIGIN) as store:
        audit(log, store)
    with closing(sqlite3.connect(tmp_path / "audit.db")) as database, database:
        database.execute("DELETE FROM delegations WHERE entry_index = 0")
    log.append(log.maker.release("later"))
    log.close(TS + 9)
    # That is no finding: the log did nothing wrong.
    with ReplayStore(tmp_path, ORIGIN) as store, pytest.raises(CannotTell, match="is damaged"):
        audit(log, store)


def test_what_was_taken_of_a_batch_that_failed_is_taken_again(log: FakeLog, store: ReplayStore) -> None:
    # The lie stands behind a state entry of the same batch, so that an interval was closed and given back.
    lie = MemorySource(files_of(with_state(log, maps={"F1": bytes(32)})))
    auditor = Auditor(policy_of(log), store, lambda done, size: None)
    with pytest.raises(Finding, match="map root"):
        auditor.derive(Files(lie), lie.files[CHECKPOINT])
    assert store.progress() == Progress()
    store._database.execute("DELETE FROM facts WHERE name = 'note'")  # the next log is another one
    assert auditor.audit(Files(source_of(log))).map_root == log.map_root


def test_a_run_that_is_stopped_between_two_batches_is_on_disk_up_to_there(tmp_path: Path) -> None:
    log = log_of(releases=600, interval=10_000)

    def stop(size: int, of: int) -> None:
        if size == 512:
            raise KeyboardInterrupt

    with ReplayStore(tmp_path, ORIGIN) as store:
        with pytest.raises(KeyboardInterrupt):
            Auditor(policy_of(log), store, stop).audit(Files(source_of(log)))
        assert store.progress().frontier.size == 512
        assert audit(log, store).fresh == len(log.entries) - 512


def test_what_waited_only_in_memory_when_a_lie_was_found_is_read_again(tmp_path: Path) -> None:
    log = log_of(releases=600, interval=10_000)
    lie = MemorySource(files_of(with_state(log, maps={"F1": bytes(32)})))
    with ReplayStore(tmp_path, ORIGIN) as store:
        auditor = Auditor(policy_of(log), store, lambda done, size: None)
        with pytest.raises(Finding, match="map root"):
            auditor.derive(Files(lie), lie.files[CHECKPOINT])
        assert store.progress().frontier.size == 256
        store._database.execute("DELETE FROM facts WHERE name = 'note'")  # the next log is another one
        found = auditor.audit(Files(source_of(log)))
        assert (found.fresh, found.map_root) == (len(log.entries) - 256, log.map_root)


def test_entries_that_wait_for_long_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(releases=600, interval=10_000)
    source = source_of(log)
    monkeypatch.setattr("quotary.client.replay_store.MAX_WAITING", 300_000)
    sizes = []
    with ReplayStore(tmp_path, ORIGIN) as store:
        auditor = Auditor(
            policy_of(log), store, lambda size, of: sizes.append((size, _waiting_on_disk(store)))
        )
        assert auditor.audit(Files(source)).map_root == log.map_root
    assert sizes == [(256, 252), (512, 508), (len(log.entries), 0)]


def _waiting_on_disk(store: ReplayStore) -> int:
    count: int = store._database.execute("SELECT count(*) FROM waiting").fetchone()[0]
    return count


@pytest.mark.parametrize("version", [b"1", b"2"])
def test_a_store_of_an_older_version_is_begun_again_and_remembers_the_checkpoint(
    log: FakeLog, tmp_path: Path, version: bytes
) -> None:
    note = source_of(log).files[CHECKPOINT]
    with closing(sqlite3.connect(tmp_path / "audit.db")) as database, database:
        database.executescript(_FACTS + _OLDER[version])
        facts = {"origin": ORIGIN.encode(), "version": version, "note": note, "progress": b"{}", "f1": b"x"}
        database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
    with ReplayStore(tmp_path, ORIGIN) as store:
        with pytest.raises(Finding, match="rollback"):
            audit(log, store, MemorySource(files_of(log.entries[:4])))
        assert audit(log, store).fresh == len(log.entries)


_FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
_OLDER = {
    b"1": """
CREATE TABLE nodes (hash BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE waiting (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE effective (entry_index INTEGER PRIMARY KEY, ts INTEGER NOT NULL, entry BLOB NOT NULL);
CREATE TABLE orders (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
""",
    b"2": """
CREATE TABLE waiting (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE orders (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE records (key BLOB PRIMARY KEY, digest BLOB NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO records VALUES (zeroblob(32), zeroblob(32), x'7b7d');
CREATE TABLE delegations (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
INSERT INTO delegations VALUES (0, x'7b7d');
""",
}
