"""The store: append-only, compare-and-swap, and every write once failing before it lands and once after."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pysqlite3 import dbapi2 as pysqlite3
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from quotary.errors import Usage
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from registry import flush
from registry.errors import DiskError, FlushFailed, HeadMoved, StoreFull, StoreUnavailable, WrongSchema
from registry.store import EMPTY_HEAD, Batch, OutcomeRow, Published, Signed, Store, create_store, open_store
from registry.store.schema import APPEND_ONLY, metadata
from registry.store.write import LEAST_ROOM
from tests.fakes.processes import until
from tests.fakes.reboot import restart_machine

STATE = {"holder": "service", "denied": "reason"}
ENTRIES = tuple((leaf_hash(b"%d" % i), b"%d" % i) for i in range(300))


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'log.db'}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = create_store(url_of(tmp_path))
    made.write.create(EMPTY_HEAD)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on each of the two databases."""
    postgres = request.param == "postgresql"
    made = create_store(request.getfixturevalue("new_postgres")() if postgres else url_of(tmp_path))
    made.write.create(EMPTY_HEAD)
    yield made
    made.close()


def batch_of(store: Store, count: int = 300) -> Batch:
    old = store.read.head()
    assert old is not None
    entries = ENTRIES[old.size : old.size + count]
    frontier, full = Frontier.parse(old.frontier).append([leaf for leaf, _ in entries])
    state_index = old.size + count - 1
    head = replace(
        old, size=frontier.size, root=frontier.root(), frontier=bytes(frontier), ts=5, state_index=state_index
    )
    return Batch(
        old,
        head,
        entries,
        tuple((tile.level, tile.n, tile.data) for tile in full),
        (),
        nodes={b"n" * 32: b"node"},
        records={b"k" * 32: b"record"},
        outcomes=(OutcomeRow(old.size, state_index, "release", "chat", 1, "sha256:00", True, "ok"),),
        terms=frozenset({("term", old.size)}),
        holders=frozenset({(b"m" * 32, "chat")}),
        denied={b"d" * 32: "bad"},
        signers=frozenset({(b"s" * 32, old.size)}),
    )


def test_the_migrations_make_exactly_the_tables_of_the_code(either: Store) -> None:
    with either.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_every_entry_tile_and_record_is_read_back(either: Store) -> None:
    batch = batch_of(either)
    either.write.integrate(batch)
    read = either.read
    assert read.head() == batch.head
    assert read.entries(0, 300) == [data for _, data in ENTRIES]
    assert read.leaf_hashes(255, 258) == [leaf for leaf, _ in ENTRIES[255:258]]
    assert read.find(ENTRIES[299][0]) == 299
    assert read.find_all([ENTRIES[3][0], b"x" * 32]) == {ENTRIES[3][0]: 3}
    assert read.tile(0, 0) == b"".join(leaf for leaf, _ in ENTRIES[:256])
    assert read.tile(0, 1) is None
    assert read.nodes([b"n" * 32, b"x" * 32]) == {b"n" * 32: b"node"}
    assert read.record(b"k" * 32, 300) == b"record"
    assert read.record(b"k" * 32, 299) is None
    assert read.records(300) == [b"record"]
    assert read.by_term("term", 300, 9) == [0]
    assert read.outcome(0) == batch.outcomes[0]
    assert read.by_statement("sha256:00", 300) == [batch.outcomes[0]]
    assert read.by_service("chat", 300, "release") == [batch.outcomes[0]]
    assert read.by_kind("release", 299) == []
    assert read.state_after(0) == 299
    assert read.newest_records([b"k" * 32, b"x" * 32], 300) == {b"k" * 32: b"record"}
    assert read.effective(["sha256:00", "sha256:01"], 300) == {"sha256:00": 0}
    assert read.newest_sequences(["chat", "nobody"], "release", 300) == {"chat": 1}
    assert read.holders(b"m" * 32, 300) == ("chat",)
    assert read.denials([b"d" * 32], 300) == {b"d" * 32: "bad"}
    assert read.signed_by(b"s" * 32, "release", 0, 300, 9) == [batch.outcomes[0]]
    assert read.state_rows(300).holder == {(b"m" * 32, "chat", 299)}


def test_what_a_later_state_entry_committed_is_not_seen_by_an_earlier_one(either: Store) -> None:
    either.write.integrate(batch_of(either))
    read = either.read
    assert read.newest_records([b"k" * 32], 299) == {}
    assert read.effective(["sha256:00"], 299) == {}
    assert read.newest_sequences(["chat"], "release", 299) == {}
    assert read.holders(b"m" * 32, 299) == ()
    assert read.denials([b"d" * 32], 299) == {}
    assert read.signed_by(b"s" * 32, "release", 0, 299, 9) == []


def test_nothing_that_was_written_can_be_changed_or_deleted(either: Store) -> None:
    either.write.integrate(batch_of(either))
    either.write.add_signed(Signed(300, b"r" * 32, b"note"), 0)
    either.write.publish(Published(300, b"note", 7))
    for table in APPEND_ONLY:
        column = {"tile": "n", "node": "data", "record": "data", "checkpoint": "note", **STATE}.get(
            table, "idx"
        )
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with either.engine.begin() as connection, pytest.raises(DBAPIError, match="append-only"):
                connection.execute(text(statement))
    for statement in (
        "DELETE FROM head",
        "DELETE FROM published",
        "UPDATE head SET size = 1",
        "UPDATE published SET size = 1",
    ):
        with either.engine.begin() as connection, pytest.raises(DBAPIError, match=r"never|append-only"):
            connection.execute(text(statement))


def test_an_entry_with_a_gap_or_in_place_of_another_is_refused(store: Store) -> None:
    store.write.integrate(batch_of(store, 3))
    row = "(idx, leaf_hash, data) VALUES ({}, x'{}', x'00')"
    for verb in ("INSERT", "INSERT OR REPLACE"):
        for index, digest in ((4, "aa"), (2, "aa"), (3, ENTRIES[0][0].hex())):
            with store.engine.begin() as connection, pytest.raises(DBAPIError):
                connection.execute(text(f"{verb} INTO entry " + row.format(index, digest)))


def test_checkpoints_form_one_chain(either: Store) -> None:
    either.write.add_signed(Signed(3, b"r" * 32, b"a"), 0)
    for size, previous in ((5, 0), (5, 2), (3, 3)):
        with pytest.raises((HeadMoved, DBAPIError)):
            either.write.add_signed(Signed(size, b"r" * 32, b"b"), previous)
    either.write.add_signed(Signed(5, b"r" * 32, b"b"), 3)
    assert [signed.size for signed in either.read.all_signed()] == [3, 5]


def test_of_two_sequencers_only_the_later_one_can_commit(either: Store) -> None:
    first = either.read.head()
    assert first is not None
    mine = either.write.take_over(first)
    theirs = either.write.take_over(mine)
    batch = batch_of(either)
    with pytest.raises(HeadMoved):
        either.write.integrate(replace(batch, old=mine))
    assert either.read.head() == theirs
    assert either.read.entries(0, 9) == []


def test_a_batch_over_an_older_head_is_refused_whole(either: Store) -> None:
    batch = batch_of(either, 3)
    either.write.integrate(batch)
    with pytest.raises(HeadMoved):
        either.write.integrate(batch)
    assert either.read.find_all([leaf for leaf, _ in ENTRIES[3:6]]) == {}


def test_a_batch_with_an_entry_that_is_logged_is_refused_whole(either: Store) -> None:
    either.write.integrate(batch_of(either, 3))
    before, batch = either.read.head(), batch_of(either, 3)
    with pytest.raises(IntegrityError):
        either.write.integrate(replace(batch, entries=(*batch.entries[:2], ENTRIES[0])))
    assert either.read.head() == before
    assert either.read.find_all([leaf for leaf, _ in ENTRIES[3:6]]) == {}


def test_a_server_that_ends_the_copying_of_entries_is_unavailable(new_postgres: Callable[[], str]) -> None:
    with closing(create_store(new_postgres())) as store, store.engine.connect() as other:
        store.write.create(EMPTY_HEAD)
        other.execute(text("LOCK TABLE entry"))
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(store.write.integrate, batch_of(store))
            waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            pid = until(lambda: other.scalar(text(waits)), "the copy waits for its table")
            other.execute(text(f"SELECT pg_terminate_backend({pid})"))
            with pytest.raises(StoreUnavailable):
                writing.result(30)
        other.rollback()
        assert store.read.head() == EMPTY_HEAD


def test_what_waits_keeps_its_order_and_waits_once(either: Store) -> None:
    either.write.enqueue(ENTRIES[:3], 1)
    either.write.enqueue(ENTRIES[1:5], 2)
    waiting = either.read.waiting(10)
    assert [row.data for row in waiting] == [b"0", b"1", b"2", b"3", b"4"]
    assert either.read.waiting_among([leaf for leaf, _ in ENTRIES[4:7]]) == {ENTRIES[4][0]}
    either.write.integrate(replace(batch_of(either, 3), done=tuple(row.id for row in waiting[:3])))
    assert [row.data for row in either.read.waiting(10)] == [b"3", b"4"]
    either.write.forget([row.id for row in either.read.waiting(10)])
    assert either.read.waiting_count() == 0


def test_the_published_checkpoint_never_shrinks(either: Store) -> None:
    either.write.publish(Published(5, b"a", 1))
    either.write.publish(Published(5, b"b", 2))
    with pytest.raises(HeadMoved):
        either.write.publish(Published(4, b"c", 3))
    assert either.read.published() == Published(5, b"b", 2)


def test_a_database_of_another_schema_is_refused(tmp_path: Path, store: Store) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(WrongSchema, match="9999"):
        open_store(url_of(tmp_path))
    with pytest.raises(WrongSchema, match="none"):
        open_store(f"sqlite:///{tmp_path / 'new.db'}")


def test_only_sqlite_and_postgresql_are_databases_and_a_password_is_not_repeated() -> None:
    for url in ("mysql://user:secret@host/db", "no url with secret"):
        with pytest.raises(Usage) as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


class Failing(pysqlite3.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose next commit fails, before or after it landed."""

    fault: str = ""
    message: str = "disk I/O error"
    code: int = 5

    def commit(self) -> None:
        fault, Failing.fault = Failing.fault, ""
        error = pysqlite3.OperationalError(self.message)
        error.sqlite_errorcode = self.code
        if fault == "before":
            raise error
        super().commit()
        if fault == "after":
            raise error


WRITES: dict[str, tuple[Callable[[Store], object], Callable[[Store], object]]] = {
    "enqueue": (lambda store: store.write.enqueue(ENTRIES[:2], 1), lambda store: store.read.waiting_count()),
    "take over": (lambda store: store.write.take_over(_head(store)), lambda store: _head(store).epoch),
    "integrate": (lambda store: store.write.integrate(batch_of(store)), lambda store: _head(store).size),
    "forget": (lambda store: store.write.forget([1]), lambda store: store.read.waiting(9)),
    "sign": (
        lambda store: store.write.add_signed(Signed(1, b"r", b"n"), 0),
        lambda store: store.read.signed(),
    ),
    "publish": (
        lambda store: store.write.publish(Published(1, b"n", 1)),
        lambda store: store.read.published(),
    ),
}


def _head(store: Store):  # type: ignore[no-untyped-def]
    head = store.read.head()
    assert head is not None
    return head


@pytest.mark.parametrize("name", sorted(WRITES))
@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_failed_commit_is_reported_and_what_is_read_again_is_the_truth(
    tmp_path: Path, store: Store, name: str, fault: str
) -> None:
    if name == "forget":
        store.write.enqueue(ENTRIES[:1], 1)
    store.close()
    failing = open_store(url_of(tmp_path), connection_class=Failing)
    act, look = WRITES[name]
    before = look(failing)
    Failing.fault = fault
    with pytest.raises(StoreUnavailable):
        act(failing)
    assert Failing.fault == ""
    found = look(open_store(url_of(tmp_path)))
    assert (found == before) is (fault == "before")


def test_a_full_disk_is_named(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "message", "database or disk is full")
    failing = open_store(url_of(tmp_path), connection_class=Failing)
    Failing.fault = "before"
    with pytest.raises(StoreFull, match="full"):
        failing.write.enqueue(ENTRIES[:1], 1)


def test_t22_an_error_of_the_disk_for_want_of_room_is_no_failed_flush(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "code", 10)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=LEAST_ROOM - 1))
    failing = open_store(url_of(tmp_path), connection_class=Failing)
    Failing.fault = "before"
    with pytest.raises(DiskError):
        failing.write.enqueue(ENTRIES[:1], 1)
    failing.write.enqueue(ENTRIES[:1], 1)
    failing.close()


def test_t22_after_a_flush_that_failed_nothing_is_written_until_fsck_after_a_restart_of_the_machine(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "code", 10)
    failing = open_store(url_of(tmp_path), connection_class=Failing)
    failing.write.check()
    Failing.fault = "before"
    for _ in range(2):
        with pytest.raises(FlushFailed, match="a write that is on the disk"):
            failing.write.enqueue(ENTRIES[:1], 1)
    with pytest.raises(FlushFailed):
        failing.write.check()
    assert failing.read.waiting_count() == 0
    failing.close()
    with closing(open_store(url_of(tmp_path))) as again:
        assert again.read.waiting_count() == 0
        with pytest.raises(FlushFailed, match="a write of the database that failed"):
            again.write.enqueue(ENTRIES[:1], 1)
        assert again.file is not None
        with pytest.raises(FlushFailed, match="a write of the database that failed"):
            flush.withdraw(again.file)
        restart_machine(tmp_path)
        flush.withdraw(again.file)
    with closing(open_store(url_of(tmp_path))) as again:
        again.write.enqueue(ENTRIES[:1], 1)
        assert again.read.waiting_count() == 1


def test_t22_where_the_disk_refuses_the_note_too_the_process_knows_and_says_so(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Failing, "code", 10)
    failing = open_store(url_of(tmp_path), connection_class=Failing)
    assert failing.file is not None
    flush.note_of(failing.file).mkdir()
    Failing.fault = "before"
    for _ in range(2):
        with pytest.raises(FlushFailed):
            failing.write.enqueue(ENTRIES[:1], 1)
    assert [record.message for record in caplog.records] == ["flush.not_noted"]
    failing.close()


def test_a_really_full_database_refuses_the_write_and_keeps_what_it_has(tmp_path: Path, store: Store) -> None:
    store.write.enqueue(ENTRIES[:1], 1)
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.rollback()
    with pytest.raises(StoreFull):
        store.write.enqueue([(leaf_hash(b"big"), bytes(1 << 20))], 1)
    assert store.read.waiting_count() == 1
