"""Recompute everything from the entries, and compare it with what is stored (``registry fsck``)."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quotary.errors import CannotTell, Rejected
from quotary.statements.f1 import Closed
from quotary.statements.order import check_interval
from quotary.statements.state_entry import state_of
from quotary.tlog import trie
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import TlogPolicy
from registry.replica import Follower
from registry.snapshot import parts
from registry.store import Head, Reader

CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """What was recomputed and found equal."""

    entries: int
    states: int
    tiles: int
    records: int
    checkpoints: int
    published: int


def check_store(read: Reader, origin: str, policy: TlogPolicy, snapshot: Path | None = None) -> Checked:
    """Recompute leaf hashes, tiles, roots, map, records, outcomes and checkpoints, or raise ``Rejected``.

    snapshot: a file of F1's state that must be the one of the replay; one of a larger size is not this log's
    """
    # Read first: a running sequencer may replace it by one of a size that this walk does not reach.
    kept = parts(snapshot) if snapshot is not None and snapshot.exists() else None
    head = read.head()
    if head is None:
        raise CannotTell("the database holds no log", next_command="quotary registry init")
    walk = _Walk(read, origin)
    walk.snapshot = kept
    while walk.frontier.size < head.size:
        walk.chunk(head.size)
    walk.compare_head(head)
    _same("snapshots not of this tree", walk.snapshot is None, True)
    published = _check_published(read, policy, walk)
    return Checked(head.size, walk.states, walk.tiles, len(walk.records), walk.checkpoints, published)


class _Walk:
    """The log, built again beside the database."""

    def __init__(self, read: Reader, origin: str) -> None:
        self.read = read
        self.origin = origin
        self.end: str | None = None
        self.frontier = Frontier()
        self.follower = Follower(origin)
        self.nodes = trie.MemoryStore()
        self.trie_root = trie.EMPTY
        self.records: dict[bytes, bytes] = {}
        self.roots: dict[int, bytes] = {}
        self.snapshot: tuple[int, bytes, bytes] | None = None
        self.states = self.tiles = self.checkpoints = self.ts = 0
        self.signed = {signed.size: signed.root for signed in read.all_signed()}

    def chunk(self, size: int) -> None:
        start, stop = self.frontier.size, min(self.frontier.size + CHUNK, size)
        entries, hashes = self.read.entries(start, stop), self.read.leaf_hashes(start, stop)
        _same("entries", len(entries), stop - start)
        for index, (entry, stored) in enumerate(zip(entries, hashes, strict=True), start):
            _same(f"leaf hash of entry {index}", stored.hex(), leaf_hash(entry).hex())
            self._entry(entry, stored)

    def compare_head(self, head: Head) -> None:
        _same("root of the head", head.root.hex(), self.frontier.root().hex())
        _same("frontier of the head", head.frontier, bytes(self.frontier))
        _same("map root of the head", head.trie_root.hex(), self.trie_root.hex())
        _same("time of the head", head.ts, self.ts)
        stored = self.read.records(head.size)
        _same("records", sorted(stored), sorted(self.records.values()))
        beyond = [size for size in self.signed if size > head.size]
        _same("signed checkpoints beyond the head", beyond, [])

    def _entry(self, entry: bytes, digest: bytes) -> None:
        self.frontier, full = self.frontier.append([digest])
        for tile in full:
            _same(f"tile {tile.level}/{tile.n}", self.read.tile(tile.level, tile.n), tile.data)
            self.tiles += 1
        state = state_of(entry)
        if state is None:
            self.follower.feed(entry)
            return
        _same("size in a state entry", state.index, self.frontier.size - 1)
        if state.ts < self.ts:
            raise Rejected("log time", str(state.ts), f"{self.ts} or later")
        _same("entries after the end of the log", self.end, None)
        roots = self.follower.f1.log_delegation
        check_interval(self.origin, self.follower.waiting, state, roots)
        self.end = state.end
        self._interval(self.follower.close(state.ts), state.maps["F1"])
        self.ts, self.states = state.ts, self.states + 1
        self._checkpoint()
        if self.snapshot is not None and self.snapshot[0] == self.frontier.size:
            _same("root of the snapshot", self.snapshot[1].hex(), self.frontier.root().hex())
            _same("F1's state in the snapshot", _sha256(self.snapshot[2]), _sha256(self.follower.f1.dump()))
            self.snapshot = None

    def _interval(self, closed: Closed, committed: bytes) -> None:
        values = {key: hashlib.sha256(record).digest() for key, record in closed.changes.items()}
        self.trie_root = trie.update(self.nodes, self.trie_root, values)
        _same(f"map root at size {self.frontier.size}", committed.hex(), self.trie_root.hex())
        self.records.update(closed.changes)
        for outcome in closed.outcomes:
            stored = self.read.outcome(outcome.index)
            found = (stored.effect, stored.code) if stored else None
            _same(f"outcome of entry {outcome.index}", found, (outcome.effect, outcome.code))

    def _checkpoint(self) -> None:
        root = self.signed.get(self.frontier.size)
        self.roots[self.frontier.size] = self.frontier.root()
        if root is not None:
            _same(f"signed root of size {self.frontier.size}", root.hex(), self.frontier.root().hex())
            self.checkpoints += 1


def _check_published(read: Reader, policy: TlogPolicy, walk: _Walk) -> int:
    published = read.published()
    if published is None:
        return 0
    checkpoint = policy.verify(published.note).checkpoint
    _same("published size", published.size, checkpoint.size)
    wanted = walk.roots.get(checkpoint.size)
    _same("published root", checkpoint.root.hex(), wanted.hex() if wanted else None)
    return checkpoint.size


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _same(check: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Rejected(
            check,
            _short(found),
            _short(wanted),
            next_command="quotary registry recover --from-mirror DIR|URL",
        )


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 100 else f"{text[:48]}...{text[-48:]}"
