"""A10: a SQLite that can corrupt its write-ahead log is not opened, and the one that is holds under stress."""

import multiprocessing
import time
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as pysqlite3

from registry.errors import UnsafeDatabase
from registry.store import create_store, open_store
from registry.store.engine import check_sqlite_version

REPAIRED = [(3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 51, 9), (3, 52, 0), (3, 53, 4), (4, 0, 0)]
BROKEN = [(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 49, 9), (3, 50, 6), (3, 51, 0), (3, 51, 2)]


@pytest.mark.parametrize("version", REPAIRED)
def test_a10_a_repaired_sqlite_passes_the_gate(version: tuple[int, int, int]) -> None:
    check_sqlite_version(version)


@pytest.mark.parametrize("version", BROKEN)
def test_a10_no_store_is_opened_by_a_sqlite_with_the_wal_reset_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    create_store(url).close()
    monkeypatch.setattr(pysqlite3, "sqlite_version_info", version)
    with pytest.raises(UnsafeDatabase, match="corrupt"):
        open_store(url)


def write(path: str, seconds: float) -> None:
    """Commit small transactions, each of which changes many pages."""
    connection = pysqlite3.connect(path, timeout=30.0, isolation_level=None)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t (data) VALUES (randomblob(?))", [(3000,)] * 20)
        connection.execute("DELETE FROM t WHERE id % 7 = abs(random() % 7)")
        connection.execute("COMMIT")


def checkpoint(path: str, seconds: float) -> None:
    connection = pysqlite3.connect(path, timeout=30.0, isolation_level=None)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def stress(folder: Path, seconds: float) -> str:
    """Two writers and three checkpointers without a pause, as in the report of the bug; SQLite's own verdict."""
    path = str(folder / "stress.db")
    with pysqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
    connection.close()
    context = multiprocessing.get_context("spawn")
    work = [write, write, checkpoint, checkpoint, checkpoint]
    processes = [context.Process(target=target, args=(path, seconds)) for target in work]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds + 60)
    assert [process.exitcode for process in processes] == [0] * 5
    with pysqlite3.connect(path) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return str(found)


@pytest.mark.soak
@pytest.mark.parametrize("run", range(10))
def test_a10_two_writers_and_three_checkpointers_corrupt_nothing(tmp_path: Path, run: int) -> None:
    assert stress(tmp_path, 60.0) == "ok"
