"""Bar A53: a start costs the same however long the log is; counted in steps of SQLite, not in seconds."""

from contextlib import closing
from pathlib import Path

from sqlalchemy import event

from quotary.statements.opened import open_entry
from registry.replica import Replica
from registry.sequencer import Sequencer
from registry.store import Store, open_store
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
        (outcome,) = Replica(ORIGIN, store.read).judge([release], TS)
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


def test_a_worker_takes_only_what_waits_and_counts_it(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        grown(log, 3)
        replica, made = Replica(ORIGIN, log.store.read), log.authority
        first, second = made.release("x"), made.release("y", sequence=4)
        log.store.write.enqueue([(b"x" * 32, first)], 0)
        (outcome,) = replica.judge([open_entry(second)], TS)
        assert outcome.code == "sequence"
        third = open_entry(made.release("z"))
        assert [found.code for found in replica.judge([third, third], TS)] == ["effective", "replay"]
        assert replica.judge([third], TS)[0].effect
