"""What an inclusion proof costs: warm, at random, and first after a restart; pymerkle beside it.

Run: ``.venv/bin/python benchmarks/bench_proofs.py [ENTRIES]`` (default 100,000). Both logs lie in SQLite.
Ours gives what the API gives: the path, and the bytes of the proof file. "Warm" asks for the newest entries
again and again, as the world does; "at random" for any entry of the log, and for the checkpoint each time.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_append import appended
from pymerkle import SqliteTree

from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash, verify_inclusion
from registry.public import PublicLog
from registry.sequencer import MAX_BATCH
from registry.store import EMPTY_HEAD, Published, create_store, open_store
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.log import signed_note

LENGTH = 64
WARM = 100_000
PROOFS = 2_000
THEIRS = 50


def entry(index: int) -> bytes:
    return index.to_bytes(LENGTH)


def fill(url: str, count: int) -> None:
    """Make a published log whose last entry is a state entry."""
    with closing(create_store(url)) as store:
        store.write.create(head := EMPTY_HEAD)
        for start in range(0, count - 1, MAX_BATCH):
            head = appended(store, head, [entry(i) for i in range(start, min(start + MAX_BATCH, count - 1))])
        state = StateEntry(count - 1, {"F1": trie.EMPTY}, TS, None).encode()
        head = appended(store, head, [state])
        note = signed_note(Checkpoint(ORIGIN, head.size, head.root), TS)
        store.write.publish(Published(head.size, note, TS))


def fill_theirs(tree: SqliteTree, count: int) -> None:
    for start in range(0, count, 10_000):
        tree.append_entries([entry(i) for i in range(start, min(start + 10_000, count))])


def micros(work: Callable[[int], object], indices: Iterable[int]) -> list[float]:
    times = []
    for index in indices:
        before = time.perf_counter()
        work(index)
        times.append((time.perf_counter() - before) * 1e6)
    return times


def show(what: str, found: float, other: float, bar: str) -> None:
    print(f"{what:<44} {found:10,.0f} us   1/{other / found:,.0f} of pymerkle's ({other:,.0f} us)   {bar}")


def check(public: PublicLog, index: int) -> None:
    """The proofs that were timed are right."""
    snapshot = public.snapshot()
    path = public.proof(index, snapshot).path
    leaf = leaf_hash(entry(index))
    verify_inclusion(index, snapshot.size, leaf, path, snapshot.checkpoint.root)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    random.seed(count)
    anywhere = [random.randrange(count - 1) for _ in range(PROOFS)]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        url = f"sqlite:///{folder}/log.db"
        fill(url, count)
        with closing(SqliteTree(f"{folder}/pymerkle.db")) as tree:
            fill_theirs(tree, count)
        with closing(SqliteTree(f"{folder}/pymerkle.db")) as tree:
            first_theirs = micros(lambda index: tree.prove_inclusion(index + 1, count), anywhere[:1])[0]
            theirs = statistics.median(
                micros(lambda index: tree.prove_inclusion(index + 1, count), anywhere[:THEIRS])
            )
        with closing(open_store(url)) as store:
            public = PublicLog(store.read)
            first = micros(lambda index: bytes(public.proof(index, public.snapshot())), anywhere[:1])[0]
            cold = micros(lambda index: bytes(public.proof(index, public.snapshot())), anywhere)
            newest = [random.randrange(max(0, count - WARM), count - 1) for _ in range(2 * PROOFS)]
            snapshot = public.snapshot()
            warm = micros(lambda index: bytes(public.proof(index, snapshot)), newest)[PROOFS:]
            check(public, anywhere[0])
        print(f"{count} entries, load {os.getloadavg()[0]:.1f}")
        show("warm, among the newest 100,000", statistics.median(warm), theirs, "bar 100 us")
        show("at random, checkpoint read each time", statistics.median(cold), theirs, "")
        show("first after a restart", first, first_theirs, "bar 5,000 us")


if __name__ == "__main__":
    main()
