"""A log built again from its entry bundles: what every auditor does before he believes a status.

``proven_batches`` gives the entries, at most 256 at a time, each proven under a checkpoint before anybody
looks into it. ``Replay`` runs F1 over them (docs/formats/f1.md) and compares the map root of every state
entry with the one that it derived itself. What is remembered lies in ``client.replay_store``; in memory are
the open interval and the hashes of the map's prefixes (``tlog.trie_summary``).
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice

from quotary.client.finding import Exhibit, Finding
from quotary.client.opener import Opener
from quotary.client.replay_store import Progress, ReplayStore
from quotary.client.source import Files
from quotary.errors import InvalidProof, Malformed, Rejected
from quotary.statements.delegation import Delegation
from quotary.statements.f1 import F1
from quotary.statements.opened import Opened
from quotary.statements.order import Order, check_interval
from quotary.statements.outcome import Outcome
from quotary.statements.state import State
from quotary.statements.state_entry import MAP_FUNCTION, StateEntry, is_reserved, state_of
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import FullTile
from quotary.tlog.merkle import HASH_LENGTH, leaf_hash, root_of, verify_inclusion, verify_subtree
from quotary.tlog.tiles import (
    TILE_WIDTH,
    HashTree,
    decode_entry_bundle,
    entries_path,
    partial_widths,
    tile_path,
    width_at,
)
from quotary.tlog.trie_summary import Summary, bits_for

# Entries whose state is looked up together.
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Up to 256 entries of one bundle, proven to stand at these indices under a checkpoint.

    start:   index of the first of ``entries``
    hashes:  their leaf hashes
    bundle:  the bytes of the whole entry bundle, from index ``256 * n`` on
    tile:    the bytes of the tile over it
    """

    n: int
    start: int
    entries: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    bundle: bytes
    tile: bytes


def proven_batches(files: Files, checkpoint: Checkpoint, start: int, note: bytes) -> Iterator[Batch]:
    """Give the entries from ``start`` to the checkpoint's size in log order, or raise ``Finding``."""
    tree = HashTree(checkpoint.size, files)
    while start < checkpoint.size:
        batch = prove_batch(files, tree, checkpoint, start, note)
        yield batch
        start += len(batch.entries)


def prove_batch(files: Files, tree: HashTree, checkpoint: Checkpoint, start: int, note: bytes) -> Batch:
    """Give the entries from ``start`` to the end of their bundle; ``tree`` is the checkpoint's."""
    signed = Exhibit("checkpoint", note)
    n = start // TILE_WIDTH
    first, width = n * TILE_WIDTH, width_at(0, n, checkpoint.size)
    tile = _proven_tile(files, tree, checkpoint, n, width, signed)
    bundle = files.entries(n, width)
    try:
        entries = decode_entry_bundle(bundle, width=width)
    except Malformed as error:
        shown = Exhibit(entries_path(n, width), bundle)
        raise Finding("entry bundle", str(error), f"{width} entries", [signed, shown]) from error
    hashes = tuple(leaf_hash(entry) for entry in entries)
    for offset, found in enumerate(hashes):
        wanted = tile[offset * HASH_LENGTH : (offset + 1) * HASH_LENGTH]
        if found != wanted:
            index = first + offset
            exhibits = [signed, Exhibit(f"entry {index}", entries[offset]), Exhibit(_name(n, width), tile)]
            raise Finding("leaf hash", f"{found.hex()} of entry {index}", wanted.hex(), exhibits)
    return Batch(n, start, entries[start - first :], hashes[start - first :], bundle, tile)


def _proven_tile(
    files: Files, tree: HashTree, checkpoint: Checkpoint, n: int, width: int, signed: Exhibit
) -> bytes:
    """Give tile ``n`` of level 0 after its root was proven to be part of the checkpoint's tree."""
    tile = files.tile(0, n, width)
    exhibits = (signed, Exhibit(_name(n, width), tile))
    # A tile of another length has another root, too.
    low, high = n * TILE_WIDTH, n * TILE_WIDTH + width
    root = root_of([tile[i : i + HASH_LENGTH] for i in range(0, len(tile), HASH_LENGTH)])
    try:
        path = tree.subtree_path(low, high)
        verify_subtree(low, high, checkpoint.size, root, checkpoint.root, path)
    except (InvalidProof, Malformed) as error:
        raise Finding("tile", str(error), f"the signed root {checkpoint.root.hex()}", exhibits) from error
    return tile


def _name(n: int, width: int) -> str:
    return tile_path(0, n, width)


@dataclass(frozen=True, slots=True)
class Interval:
    """What was decided when an interval ended, its map root found equal.

    index:    of its state entry
    outcomes: one for each entry that is no reserved record
    order:    what the log's roots ordered in it
    """

    index: int
    outcomes: tuple[Outcome, ...]
    order: Order | None


Observe = Callable[[Interval], None]


def unobserved(_: Interval) -> None:
    """Tell nobody."""


class Replay:
    """One log as far as it was replayed, going on from what ``store`` holds.

    genesis: leaf hash that entry 0 must have, from the policy
    opener:  opens the entries and verifies their signatures
    observe: is told of each interval in the transaction that lands it, its entries still in ``store``
    """

    def __init__(
        self,
        origin: str,
        genesis: bytes,
        store: ReplayStore,
        opener: Opener,
        observe: Observe = unobserved,
    ) -> None:
        self._observe = observe
        self._genesis = genesis
        self._store = store
        self._opener = opener
        self._origin = origin
        self.progress = store.progress()
        self._take_up(self.size)

    @property
    def size(self) -> int:
        """Say how many entries were replayed."""
        return self.progress.frontier.size

    def run(self, files: Files, checkpoint: Checkpoint, note: bytes) -> Generator[int, None, None]:
        """Replay up to a checkpoint, giving the size reached after each batch; raises ``Finding``."""
        if self._is_stale or self._map.bits < bits_for(checkpoint.size):
            self._take_up(checkpoint.size)
        proven = proven_batches(files, checkpoint, self.size, note)
        try:
            for batch in self._opener.ahead(proven, checkpoint.size - self.size):
                self._land(files, checkpoint, note, batch)
                yield self.size
        finally:
            self._save()
        self._finish(files, checkpoint, note)

    def _take_up(self, size: int) -> None:
        """Take F1's state from the store, after a look at whether it gives the map; ready for ``size``."""
        self._known = self._store.state()
        self._map = Summary(self._known.pairs, bits_for(size))
        self._is_stale = False
        if self._map.root != self.progress.map_root:
            raise Malformed(f"the audit store {self._store.path} is damaged: remove it and audit again")

    def _land(self, files: Files, checkpoint: Checkpoint, note: bytes, batch: Batch) -> None:
        """Take a batch whole or not at all; it is on disk at once where it ends an interval."""
        try:
            with self._store.transaction():
                after = self._take(files, checkpoint, note, batch)
                if after.states != self.progress.states or self._store.is_full:
                    self._store.save(after)
            self.progress = after
        except BaseException:
            # What is not on disk is forgotten: progress, state and map are those of the store again.
            self.progress, self._is_stale = self._store.progress(), True
            raise

    def _save(self) -> None:
        """Bring to disk what was taken of an interval that is still open."""
        if self._store.progress().frontier.size != self.size:
            with self._store.transaction():
                self._store.save(self.progress)

    def _take(self, files: Files, checkpoint: Checkpoint, note: bytes, batch: Batch) -> Progress:
        progress = self.progress
        self._check_prefix(batch, note)
        frontier, full = progress.frontier.append(batch.hashes)
        _check_full_tiles(files, full, note)
        if batch.start == 0 and batch.hashes[0] != self._genesis:
            exhibits = (Exhibit("checkpoint", note), Exhibit("entry 0", batch.entries[0]))
            raise Finding("genesis", batch.hashes[0].hex(), self._genesis.hex(), exhibits)
        progress = progress.grown(frontier)
        for index, entry in enumerate(batch.entries, batch.start):
            try:
                state = state_of(entry)
                if state is None:
                    self._store.wait(index, entry)
                else:
                    progress = self._close(progress, index, entry, state)
            except Finding as finding:
                shown = [Exhibit("checkpoint", note), *_included(files, checkpoint, index), *finding.exhibits]
                raise Finding(finding.check, finding.found, finding.wanted, shown) from finding
            except Malformed as error:
                shown = [Exhibit("checkpoint", note), Exhibit(f"entry {index}", entry)]
                raise Finding("state", str(error), f"a state entry at {index}", shown) from error
        return progress

    def _check_prefix(self, batch: Batch, note: bytes) -> None:
        """A tile only grows: what was replayed of it before must stand in it still."""
        seen = self.progress.frontier.tile(0)
        if batch.tile[: len(seen)] != seen:
            exhibits = (Exhibit("checkpoint", note), Exhibit(_name(batch.n, len(seen) // HASH_LENGTH), seen))
            raise Finding(
                "fork", f"other leaf hashes before entry {batch.start}", "those of the last run", exhibits
            )

    def _close(self, before: Progress, index: int, entry: bytes, state: StateEntry) -> Progress:
        """End an interval: the state entry follows the one before, and its map root is the one we derive."""
        shown = [Exhibit(f"entry {index}", entry)]
        if before.state is not None:
            shown.append(Exhibit(f"entry {before.state.index}", before.state.encode()))
        if state.index != index:
            raise Finding("state", f"size {state.index} at index {index}", f"size {index}", shown)
        try:
            state.check_follows(before.state)
        except Rejected as error:
            raise Finding("state", error.found, error.wanted, shown) from error
        first = 0 if before.state is None else before.state.index + 1
        changed = State(self._known)
        f1 = F1(self._origin, changed, first, self._opener.verify)
        order = self._check_order(index, state, f1.log_delegation, shown)
        closed = f1.decide(self._statements(), state.ts)
        self._known.absorb(changed.new, closed.changes, self._store.waited)
        root = self._map.update(closed.changes)
        committed = state.maps.get(MAP_FUNCTION)
        if committed != root:
            shown += [Exhibit(f"entry {number}", waited) for number, waited in self._store.waiting(4096)]
            found = "none" if committed is None else committed.hex()
            raise Finding("map root", f"{found} in entry {index}", f"{root.hex()}, by F1", shown)
        self._observe(Interval(index, closed.outcomes, order))
        self._store.settle()
        self._opener.settle(index)
        return before.closed(state, root, _count(closed.outcomes))

    def _statements(self) -> Iterator[tuple[int, Opened]]:
        waiting = (item for item in self._store.waiting() if not is_reserved(item[1]))
        opened = ((index, self._opener.opened(index, entry)) for index, entry in waiting)
        while some := tuple(islice(opened, _TOGETHER)):
            self._known.expect(item.statement for _, item in some if item.statement is not None)
            yield from some

    def _check_order(
        self, index: int, state: StateEntry, log: Delegation | None, shown: list[Exhibit]
    ) -> Order | None:
        """An order is of the roots in force before it, alone in its interval, named where it ends the log."""
        try:
            order = check_interval(self._origin, self._store.waiting(), state, log)
        except (Malformed, Rejected) as error:
            shown += [Exhibit(f"entry {number}", waited) for number, waited in self._store.waiting(4096)]
            raise Finding(
                "order", str(error), f"an order of the roots before entry {index}", shown
            ) from error
        if order is not None:
            self._store.obey(index - 1, order.encode())
        return order

    def _finish(self, files: Files, checkpoint: Checkpoint, note: bytes) -> None:
        """The edge of the tree, its root, and the state entry that ends it."""
        frontier, signed = self.progress.frontier, Exhibit("checkpoint", note)
        for level, width in enumerate(partial_widths(checkpoint.size)):
            if width:
                _same_tile(files, level, checkpoint.size >> 8 * (level + 1), frontier.tile(level), note)
        if frontier.root() != checkpoint.root:
            raise Finding(
                "root", checkpoint.root.hex(), f"{frontier.root().hex()}, from the entries", [signed]
            )
        state = self.progress.state
        if state is None or state.index != checkpoint.size - 1:
            last = "none" if state is None else str(state.index)
            wanted = f"a state entry at {checkpoint.size - 1}"
            raise Finding("state", f"the last state entry is {last}", wanted, [signed])


def _check_full_tiles(files: Files, full: tuple[FullTile, ...], note: bytes) -> None:
    for tile in full:
        if tile.level:
            _same_tile(files, tile.level, tile.n, tile.data, note)


def _same_tile(files: Files, level: int, n: int, wanted: bytes, note: bytes) -> None:
    width = len(wanted) // HASH_LENGTH
    found = files.tile(level, n, width)
    if found != wanted:
        path = tile_path(level, n, width)
        exhibits = (Exhibit("checkpoint", note), Exhibit(path, found))
        raise Finding("tile", f"other hashes in {path}", "those over the entries", exhibits)


def _included(files: Files, checkpoint: Checkpoint, index: int) -> tuple[Exhibit, ...]:
    """Give the inclusion path of an entry, so that the log cannot deny it."""
    tree = HashTree(checkpoint.size, files)
    path = tree.inclusion_path(index)
    verify_inclusion(index, checkpoint.size, tree.leaf(index), path, checkpoint.root)
    return (Exhibit(f"path {index}", b"".join(path)),)


def _count(outcomes: tuple[Outcome, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.code] = counts.get(outcome.code, 0) + 1
    return counts
