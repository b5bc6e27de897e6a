"""The sequencer in process: faults around each commit, clocks, rollbacks, and equal bytes on both databases."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as pysqlite3

from quotary.errors import Rejected
from quotary.statements.state_entry import StateEntry
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash, proof_ranges, root_of
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import consistency_path
from registry import export
from registry.errors import HeadMoved, RolledBack, SignerRefused
from registry.fsck import Checked, check_store
from registry.sequence import pause_after
from registry.sequencer import Sequencer
from registry.signing import SignerClient
from registry.store import Head, Store, open_store
from registry.tree import StoredTiles
from tests.fakes import queries
from tests.fakes.authority import NOW, ORIGIN, TS
from tests.fakes.inprocess import Local, config_of, local

STATEMENTS = 40


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


def story(log: Local) -> None:
    made = log.authority
    log.append(made.allocation(), made.delegation())
    log.append(made.floor(), made.release("r1"), made.notice())
    log.append(made.revocation(["r1", "unheard"]))


def fsck(log: Local) -> Checked:
    return check_store(log.store.read, ORIGIN, TlogPolicy.parse(log.config.policy.read_text("utf-8")))


def states(store: Store) -> list[StateEntry]:
    head = store.read.head()
    assert head is not None
    entries = store.read.entries(0, head.size)
    return [StateEntry.parse(entry) for entry in entries if b'"type":"state"' in entry]


def test_each_interval_ends_in_a_state_entry_and_an_idle_log_appends_nothing(log: Local) -> None:
    story(log)
    head = log.store.read.head()
    assert head is not None
    for _ in range(3):
        log.clock.forward(1)
        log.loop.round()
    assert log.store.read.head() == head
    found = states(log.store)
    before = None
    for state in found:
        state.check_follows(before)
        before = state
    assert [state.index for state in found] == [1, 4, 8, 10]
    assert found[-1].maps["F1"] == head.trie_root
    assert fsck(log) == Checked(11, 4, 0, 5, 4, 11)


def test_the_genesis_is_entry_zero_and_the_first_checkpoint_has_size_two(log: Local) -> None:
    published = log.store.read.published()
    assert published is not None
    assert published.size == 2
    assert Checkpoint.parse(Note.parse(published.note).text).root == root_of(log.store.read.leaf_hashes(0, 2))


def test_outcomes_and_terms_are_kept_with_the_entries(log: Local) -> None:
    story(log)
    rows = log.store.read.outcomes(0, 11)
    assert [(row.index, row.kind, row.code) for row in rows] == [
        (0, "delegation", "effective"),
        (2, "delegation", "effective"),
        (3, "delegation", "effective"),
        (5, "tcb-floor", "effective"),
        (6, "release", "effective"),
        (7, "artefact", "notice"),
        (9, "revocation", "effective"),
    ]
    assert log.store.read.by_term("06" * 32, 11, 9) == [7]
    assert log.store.read.by_term("03" * 32, 11, 9) == [6]


def test_an_entry_that_is_logged_already_is_not_logged_twice(log: Local) -> None:
    story(log)
    entry = log.store.read.entries(6, 7)[0]
    head = log.store.read.head()
    log.append(entry)
    assert log.store.read.head() == head
    assert log.store.read.waiting_count() == 0


def test_log_time_never_falls_and_a_clock_far_behind_stops_the_log(
    log: Local, caplog: pytest.LogCaptureFixture
) -> None:
    made = log.authority
    log.clock.at = NOW - timedelta(seconds=60)
    log.append(made.allocation())
    assert [state.ts for state in states(log.store)] == [TS, TS]
    log.clock.at = NOW - timedelta(seconds=61)
    log.append(made.delegation())
    assert len(states(log.store)) == 2
    assert "61 s behind the log" in caplog.records[-1].__dict__["why"]
    log.clock.at = NOW
    log.loop.round()
    assert [state.ts for state in states(log.store)] == [TS, TS, TS]


class Failing(pysqlite3.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose n-th writing commit from now fails, before or after it landed."""

    countdown: int = 0
    after: bool = False

    def commit(self) -> None:
        Failing.countdown -= 1
        fails = Failing.countdown == 0
        if not fails or self.after:
            super().commit()
        if fails:
            raise pysqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("point", range(1, 4))
def test_a_fault_at_any_commit_of_a_round_loses_and_doubles_nothing(
    tmp_path: Path, point: int, after: bool
) -> None:
    with local(tmp_path):
        pass
    store = open_store(config_of(tmp_path / "log").database_url, connection_class=Failing)
    with local(tmp_path, store=store) as log:
        log.loop.round()
        made = log.authority
        entries = [made.allocation(), made.delegation(), made.release("r1")]
        store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
        Failing.countdown, Failing.after = point, after
        for _ in range(3):
            log.loop.round()
            log.clock.forward(200)
        assert Failing.countdown <= 0
        assert [log.store.read.find(leaf_hash(entry)) for entry in entries] == [2, 3, 4]
        assert log.store.read.published_size() == 6
        assert fsck(log).published == 6


def test_a_sequencer_that_was_replaced_stops_instead_of_trying_again(log: Local) -> None:
    Sequencer(log.store, ORIGIN, log.signer, log.clock).take_over()
    entry = log.authority.allocation()
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
    for _ in range(2):
        with pytest.raises(HeadMoved):
            log.loop.round()
    assert log.store.read.find(leaf_hash(entry)) is None


def test_a_signer_that_is_ahead_stops_the_log_before_any_signature(log: Local) -> None:
    hashes = [*log.store.read.leaf_hashes(0, 2), bytes(32), bytes(32), bytes(32)]
    proof = tuple(root_of(hashes[low:high]) for low, high in proof_ranges(0, 2, 5))
    log.signer.sign(5, root_of(hashes), proof)
    with pytest.raises(RolledBack, match="size at the signer: found 5, wanted at most 2"):
        log.sequencer.check_signer()


def test_more_than_a_batch_is_taken_in_several_transactions(
    log: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.sequencer.MAX_BATCH", 2)
    made = log.authority
    log.append(
        made.allocation(), made.delegation(), made.release("r1"), made.release("r2"), made.release("r3")
    )
    assert [state.index for state in states(log.store)] == [1, 4, 7, 9]
    assert fsck(log).published == 10


def test_a_crash_between_two_transactions_of_an_interval_is_closed_by_the_next_start(log: Local) -> None:
    entry = log.authority.allocation()
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
    from registry.batch import append_only

    log.sequencer._commit(append_only(log.sequencer._head, log.store.read.waiting(9)))
    successor = Sequencer(log.store, ORIGIN, log.signer, log.clock)
    successor.take_over()
    successor.integrate()
    successor.sign()
    assert [state.index for state in states(log.store)] == [1, 3]


def corruptions(log: Local) -> dict[str, tuple[str, str]]:
    """What somebody with the database in hands could change, and the check that says so."""
    return {
        "UPDATE entry SET data = x'00' WHERE idx = 6": ("entry_no_update", "leaf hash of entry 6"),
        "UPDATE entry SET leaf_hash = x'00' WHERE idx = 6": ("entry_no_update", "leaf hash of entry 6"),
        "UPDATE head SET root = x'00'": ("head_grows", "root of the head"),
        "UPDATE head SET trie_root = x'00'": ("head_grows", "map root of the head"),
        "UPDATE head SET ts = 1": ("head_grows", "time of the head"),
        "UPDATE record SET data = x'00'": ("record_no_update", "records"),
        "UPDATE outcome SET code = 'other'": ("outcome_no_update", "outcome of entry 0"),
        "UPDATE outcome SET sequence = 7": ("outcome_no_update", "outcome of entry 0"),
        "UPDATE outcome SET closed_by = 4 WHERE idx = 5": ("outcome_no_update", "outcome of entry 5"),
        "DELETE FROM holder": ("holder_no_delete", "rows of the table holder"),
        "UPDATE holder SET closed_by = 1": ("holder_no_update", "rows of the table holder"),
        "INSERT INTO denied VALUES (x'00', 'none', 4)": ("denied_no_update", "rows of the table denied"),
        "UPDATE signer SET key = x'00'": ("signer_no_update", "rows of the table signer"),
        "UPDATE checkpoint SET root = x'00' WHERE size = 5": (
            "checkpoint_no_update",
            "signed root of size 5",
        ),
        "UPDATE published SET size = 99": ("published_grows", "published size"),
    }


def test_fsck_names_whatever_contradicts_the_entries(log: Local) -> None:
    story(log)
    for statement, (trigger, check) in corruptions(log).items():
        with log.store.engine.connect() as connection:
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
            connection.exec_driver_sql(statement)
            with pytest.raises(Rejected) as caught:
                check_store(_Same(connection), ORIGIN, TlogPolicy.parse(log.config.policy.read_text("utf-8")))  # type: ignore[arg-type]
            assert caught.value.check == check
            connection.rollback()
    assert fsck(log).entries == 11


class _Same:
    """A reader on one connection, so that what it sees is not committed."""

    def __init__(self, connection) -> None:  # type: ignore[no-untyped-def]
        from registry.store import Reader

        self._reader = Reader(connection.engine)
        self._reader._reading = lambda: nullcontext(connection)  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)


def everything(store: Store) -> dict[str, object]:
    read = store.read
    head = read.head()
    assert head is not None
    return {
        "entries": read.entries(0, head.size),
        "hashes": read.leaf_hashes(0, head.size),
        "tile": read.tile(0, 0),
        "head": head,
        "records": read.records(head.size),
        "outcomes": read.outcomes(0, head.size),
        "checkpoints": [(signed.size, signed.root) for signed in read.all_signed()],
        "terms": read.by_term("03" * 32, head.size, 1000),
    }


def long_story(log: Local) -> None:
    story(log)
    for start in range(0, 260, 65):
        log.clock.forward(2)
        log.append(*(log.authority.release(f"s{start + i}") for i in range(65)))


def test_a_signer_that_refuses_stops_the_sequencer(log: Local, tmp_path: Path) -> None:
    entry = log.authority.allocation()
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
    log.sequencer.integrate()
    other = [bytes(32)] * 3
    head = log.store.read.head()
    assert head is not None
    for size, root in ((head.size, root_of(other)), (1, bytes(32)), (2, bytes(32))):
        with pytest.raises(SignerRefused):
            log.signer.sign(size, root, ())


def test_a_sequencer_whose_signer_went_on_meanwhile_was_overtaken(log: Local) -> None:
    """One that was replaced asked for its own head between our question to the signer and our request."""

    class Late(SignerClient):
        def sign(self, size: int, root: bytes, proof: tuple[bytes, ...], *, final: bool = False) -> bytes:
            log.signer.sign(first.size, first.root, between)
            return super().sign(size, root, proof, final=final)

    signed, first = log.signer.head(), integrate(log, log.authority.allocation())
    between = consistency_path(signed.size, first.size, StoredTiles(log.store.read))
    ours = Sequencer(log.store, ORIGIN, Late(log.config.socket), log.clock)
    ours.take_over()
    waits = log.authority.delegation()
    log.store.write.enqueue([(leaf_hash(waits), waits)], 0)
    ours.integrate()
    with pytest.raises(
        HeadMoved, match=f"the signer is at size {first.size}, asked to continue {signed.size}"
    ):
        ours.sign()
    again = Sequencer(log.store, ORIGIN, log.signer, log.clock)
    again.take_over()
    again.sign()
    assert log.signer.head().size == first.size + 2


def integrate(log: Local, entry: bytes) -> Head:
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
    log.sequencer.integrate()
    head = log.store.read.head()
    assert head is not None
    return head


def test_an_empty_log_is_not_signed(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        log.sequencer.sign()
        assert log.signer.head().size == 0


def test_a_round_begins_each_interval_and_leaves_the_database_to_others_between() -> None:
    assert [pause_after(took, 1.0) for took in (0.0, 0.25, 0.95, 30.0)] == [1.0, 0.75, 0.1, 0.1]


def test_a_round_costs_so_many_statements_however_many_entries_it_has(
    log: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TURN_SECONDS", 3600.0)  # bundles come on top
    made = log.authority
    story(log)
    log.append(made.release("warm"))
    asked = []
    for count in (1, 20):
        waiting = [made.release(f"{count} {number}") for number in range(count)]
        log.store.write.enqueue([(leaf_hash(entry), entry) for entry in waiting], 0)
        with queries.counted(log.store) as texts:
            log.loop.round()
        asked.append(len(texts))
    assert asked == [STATEMENTS, STATEMENTS]


def test_an_open_tile_is_read_again_when_it_has_grown_and_not_before(log: Local) -> None:
    story(log)
    tiles = StoredTiles(log.store.read)
    size = len(log.store.read.entries(0, 99))
    before = tiles.tile(0, 0, size)
    with queries.counted(log.store) as texts:
        assert tiles.tile(0, 0, size - 2) == before[:-64]
        assert texts == []
        log.append(log.authority.release("r2"))
        texts.clear()
        assert tiles.tile(0, 0, size + 2)[:-64] == before
        assert len(texts) == 2
