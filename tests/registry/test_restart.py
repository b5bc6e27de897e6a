"""Bar A53: a start costs the same however long the log is; counted in steps of SQLite, not in seconds."""

from contextlib import closing
from pathlib import Path

from sqlalchemy import event

from quotary.statements.envelope import Envelope, Signature
from quotary.statements.opened import open_entry
from quotary.tlog.merkle import leaf_hash
from registry.replica import Replica
from registry.sequencer import Sequencer
from registry.store import Store, open_store
from tests.fakes import queries
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.inprocess import Local, local

FEW, MANY = 20, 600
EVERY = 10


def grown(log: Local, count: int) -> None:
    """A service with so many releases, of two rows each, and as many notices."""
    made = log.authority
    log.loop.round()
    log.append(made.allocation(), made.delegation(notices=("artefact",)))
    log.append(*(made.release(f"{number}", f"{number % 9} again") for number in range(count)))
    log.append(*(made.notice() for _ in range(count)))


def steps_of_a_start(log: Local) -> int:
    """Count what SQLite does until a sequencer leads and a worker has judged a release."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += EVERY
        return 0

    with closing(open_store(log.config.database_url)) as store:
        counted(store, step)
        sequencer = Sequencer(store, ORIGIN, log.signer, log.clock)
        sequencer.take_over()
        sequencer.check_signer()
        release = open_entry(log.authority.release("new"))
        ((outcome, _),) = Replica(ORIGIN, store.read).judge({b"": release}, TS).values()
        assert outcome.effect
    return steps


def counted(store: Store, step: object) -> None:
    store.engine.dispose()
    event.listen(store.engine, "connect", lambda connection, _: connection.set_progress_handler(step, EVERY))


def test_a53_a_start_over_a_log_thirty_times_as_long_does_the_same_work(tmp_path: Path) -> None:
    work = {}
    for count in (FEW, MANY):
        with local(tmp_path / str(count)) as log:
            grown(log, count)
            work[count] = steps_of_a_start(log)
    assert work[FEW] > 0
    assert work[MANY] < 1.5 * work[FEW]


def test_a_worker_counts_what_waits_and_goes_on_when_it_is_logged(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        grown(log, 3)
        replica, made = Replica(ORIGIN, log.store.read), log.authority

        def codes(*entries: bytes) -> list[str]:
            named = {leaf_hash(entry): open_entry(entry) for entry in entries}
            return [outcome.code for outcome, _ in replica.judge(named, TS).values()]

        def wait(entry: bytes) -> None:
            log.store.write.enqueue([(leaf_hash(entry), entry)], 0)

        first, second = made.release("x"), made.release("y", sequence=4)
        wait(first)
        assert codes(second) == ["sequence"]
        third, revocation = made.release("z"), made.revocation(["x"])
        assert codes(third, revocation, made.revocation(["x"])) == [
            "effective",
            "effective",
            "already-revoked",
        ]
        assert codes(third) == ["effective"]
        wait(revocation)
        assert codes(made.revocation(["x"]), third) == ["already-revoked", "effective"]
        log.loop.round()
        # Nothing of what it took waits any more: it stands on the new state entry, as a new worker does.
        assert codes(first, third) == ["replay", "effective"]
        wait(third)
        assert codes(third) == ["replay"]
        fourth = made.release("w")
        log.append(fourth)
        assert codes(fourth, made.release("v")) == ["replay", "effective"]


def test_what_another_worker_let_in_is_taken_over_in_few_queries(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        grown(log, 3)
        made, asked = log.authority, []
        for count in (2, 20):
            waiting = [made.release(f"{count} {number}") for number in range(count)]
            log.store.write.enqueue([(leaf_hash(entry), entry) for entry in waiting], 0)
            replica, release = Replica(ORIGIN, log.store.read), open_entry(made.release(f"new {count}"))
            with queries.counted(log.store) as texts:
                ((outcome, _),) = replica.judge({b"": release}, TS).values()
            assert outcome.effect
            asked.append(len(texts))
        assert asked[0] == asked[1]


def test_a_worker_verifies_what_it_lets_in_and_not_again_what_waits(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        grown(log, 3)
        replica, forged = Replica(ORIGIN, log.store.read), tampered(log.authority.release("x"))

        def code(entry: bytes) -> str:
            ((outcome, _),) = replica.judge({leaf_hash(entry): open_entry(entry)}, TS).values()
            return outcome.code

        assert code(forged) == "invalid-signature"
        # Whoever writes this into the database makes workers err, and never the log.
        log.store.write.enqueue([(leaf_hash(forged), forged)], 0)
        assert code(log.authority.release("y", sequence=4)) == "sequence"
        log.loop.round()
        row = log.store.read.by_statement(Envelope.parse(forged).statement_id, 10**6)[0]
        assert (row.effect, row.code) == (False, "invalid-signature")
        assert code(log.authority.release("y", sequence=4)) == "effective"


def tampered(entry: bytes) -> bytes:
    envelope = Envelope.parse(entry)
    (good,) = envelope.signatures
    bad = Signature(good.keyid, bytes([good.sig[0] ^ 1]) + good.sig[1:])
    return Envelope(envelope.payload, (bad,)).encode()
