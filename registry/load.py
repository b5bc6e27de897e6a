"""Fill an empty database from a copy of a log: all entries first, proven as they come, then what they mean.

Entries and tiles are durable before F1 looks at them, many thousand a second; F1 then goes interval by
interval through what is stored, and each state entry must be the one that it gives.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from quotary.errors import Rejected
from quotary.statements.state_entry import state_of
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from registry.batch import Intervals, append_only
from registry.sequencer import MAX_BATCH
from registry.store import EMPTY_HEAD, Batch, Head, Reader, Store, Waiting


def load_entries(store: Store, checkpoint: Checkpoint, entries: Iterable[bytes]) -> None:
    """Write entries and tiles durably, and raise ``Rejected`` unless they are those of the checkpoint.

    The head stays where it is: a database that this left half way holds no log.
    """
    frontier, found = Frontier(), iter(entries)
    while batch := list(islice(found, MAX_BATCH)):
        start, leaves = frontier.size, [leaf_hash(entry) for entry in batch]
        frontier, full = frontier.append(leaves)
        tiles = tuple((tile.level, tile.n, tile.data) for tile in full)
        store.write.load(start, tuple(zip(leaves, batch, strict=True)), tiles)
    if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
        raise Rejected(
            "copy of the log",
            f"{frontier.size} entries with root {frontier.root().hex()}",
            f"{checkpoint.size} with root {checkpoint.root.hex()}",
        )


def derive(store: Store, origin: str, size: int) -> Head:
    """Let F1 go through the stored entries as the sequencer would have; give the head that it ends with."""
    store.write.create(EMPTY_HEAD)
    work = _Derivation(store, origin)
    for entry in _stored(store.read, size):
        work.take(entry)
    if work.head.size != size:
        raise Rejected("last entry", f"no state entry at {size - 1}", "one that closes the log")
    return work.head


class _Derivation:
    """Repeats what the sequencer did, one interval after the other."""

    def __init__(self, store: Store, origin: str) -> None:
        self.head: Head = EMPTY_HEAD
        self._store = store
        self._intervals = Intervals(origin, store.read)
        self._waiting: list[Waiting] = []

    def take(self, entry: bytes) -> None:
        state = state_of(entry)
        if state is None:
            self._waiting.append(Waiting(0, leaf_hash(entry), entry))
            if len(self._waiting) == MAX_BATCH:
                self._write(append_only(self.head, self._waiting))
            return
        if state.ts < self.head.ts:
            raise Rejected("log time", str(state.ts), f"{self.head.ts} or later")
        batch = self._intervals.close(self.head, self._waiting, state.ts, state.end)
        made = batch.entries[-1][1]
        if made != entry:
            raise Rejected(f"state entry at {state.index}", entry.hex()[:200], made.hex()[:200])
        self._write(batch)

    def _write(self, batch: Batch) -> None:
        self._store.write.integrate(replace(batch, entries=(), tiles=()))
        self.head, self._waiting = batch.head, []


def _stored(read: Reader, size: int) -> Iterator[bytes]:
    for start in range(0, size, MAX_BATCH):
        yield from read.entries(start, min(start + MAX_BATCH, size))
