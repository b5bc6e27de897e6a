"""What F1's state costs a registry: memory of a sequencer and of a worker, and a start, at two sizes.

Releases with one row each, the dearest for the map, go through F1 into SQLite, 4096 an interval. Run:
``.venv/bin/python benchmarks/bench_state.py [FEW MANY]`` (default 30,000 and 100,000). Both sizes give a line
through 1,000,000 and 10,000,000. The reference of the same run is the state in memory, as ``fsck`` has it.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic import SETUP, releases, setup_entries
from quotary.statements.f1 import F1
from quotary.statements.opened import open_entry
from quotary.tlog.merkle import leaf_hash
from registry.batch import Intervals
from registry.replica import Replica
from registry.sequencer import MAX_BATCH
from registry.store import EMPTY_HEAD, Waiting, create_store, open_store
from tests.fakes.authority import ORIGIN, TS

SIZES = (1_000_000, 10_000_000)
BAR_MIB = 512
BAR_SECONDS = 2.0


def main() -> None:
    few, many = map(int, sys.argv[1:3] or ("30000", "100000"))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        found = [measure(f"sqlite:///{folder}/{count}.db", count) for count in (few, many)]
    for name, unit, bar in (
        ("sequencer, peak", "MiB", f"{BAR_MIB} MiB"),
        ("worker, peak", "MiB", f"{BAR_MIB} MiB"),
        ("start to the first judgement", "s", f"{BAR_SECONDS} s"),
        ("F1's state in memory, peak", "MiB", "the reference"),
    ):
        low, high = found[0][name], found[1][name]
        slope = (high - low) / (many - few)
        lines = "   ".join(f"{size:,}: {high + slope * (size - many):,.2f}" for size in SIZES)
        print(
            f"{name:<30} {few:,}: {low:,.2f} {unit}   {many:,}: {high:,.2f}   by a line {lines}   bar {bar}"
        )


def measure(url: str, count: int) -> dict[str, float]:
    """Fill a log, and look at each process alone."""
    _, sequencer = alone(lambda: fill(url, count))
    seconds, worker = alone(lambda: start(url, count))
    return {
        "sequencer, peak": sequencer,
        "worker, peak": worker,
        "start to the first judgement": seconds,
        "F1's state in memory, peak": alone(lambda: remember(count))[1],
    }


def alone(work: Callable[[], float]) -> tuple[float, float]:
    """Run in a new process; give its answer and the peak of its memory in MiB."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(work, theirs))
    process.start()
    theirs.close()
    found: tuple[float, float] = ours.recv()
    process.join()
    return found


def _answer(work: Callable[[], float], pipe: Connection) -> None:
    pipe.send((work(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def batches(count: int) -> Iterator[list[bytes]]:
    yield setup_entries()
    for first in range(SETUP, count, MAX_BATCH):
        yield releases(first, min(first + MAX_BATCH, count))


def fill(url: str, count: int) -> float:
    """Integrate as the sequencer does."""
    with closing(create_store(url)) as store:
        store.write.create(EMPTY_HEAD)
        intervals, head = Intervals(ORIGIN, store.read), EMPTY_HEAD
        for batch in batches(count):
            waiting = [Waiting(0, leaf_hash(entry), entry) for entry in batch]
            made = intervals.close(head, waiting, TS)
            assert all(outcome.effect for outcome in made.outcomes)
            store.write.integrate(made)
            head = made.head
    return 0.0


def start(url: str, count: int) -> float:
    """Open the database as a worker does, and judge a release."""
    (entry,) = releases(count, count + 1)
    started = time.perf_counter()
    with closing(open_store(url)) as store:
        replica = Replica(ORIGIN, store.read)
        (outcome,) = replica.judge({leaf_hash(entry): open_entry(entry)}, TS).values()
        seconds = time.perf_counter() - started
    assert outcome.effect
    return seconds


def remember(count: int) -> float:
    """Replay with everything in memory."""
    f1, size = F1(ORIGIN, verify=lambda *_: None), 0
    for batch in batches(count):
        f1.close(enumerate(batch, size), TS)
        size += len(batch)
    return 0.0


if __name__ == "__main__":
    main()
