"""Verify before sign: what will be signed is hashed again, from the bytes that the database gives back.

A bit that flips between hashing and storing would otherwise be signed, and the log would be lost: no proof of
that entry could ever hold (as happened to Yeti 2022, a certificate log). The arithmetic is that of
``quotary.tlog.tiles``, another one than the frontier's, which the sequencer appends with.
"""

from collections.abc import Iterable

from quotary.statements.state_entry import StateEntry
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import HASH_LENGTH, leaf_hash, root_of
from quotary.tlog.tiles import TILE_WIDTH, root_at
from registry.errors import Damaged, HeadMoved
from registry.store import Head, Reader, Waiting
from registry.tree import StoredTiles


def check_waiting(rows: Iterable[Waiting]) -> None:
    """Refuse a waiting entry that no longer has its leaf hash."""
    for row in rows:
        _same("leaf hash of a waiting entry", leaf_hash(row.data), row.leaf_hash)


def check_committed(read: Reader, tiles: StoredTiles, old_size: int, head: Head) -> None:
    """Refuse a head that the database does not hold, or that is not that of its entries from ``old_size`` on.

    The entries before are the signer's business: it demands a proof that ``head`` continues what it signed.
    Raises ``HeadMoved`` where another sequencer has gone on, else ``Damaged``.
    """
    stored = read.head()
    if stored is None or (stored.epoch, stored.size) != (head.epoch, head.size):
        raise HeadMoved(f"the head is no longer at epoch {head.epoch}, size {head.size}")
    _same("root of the frontier", Frontier.parse(stored.frontier).root(), stored.root)
    root = root_at(head.size, _Reread(read, tiles, old_size))
    _same(f"root of size {head.size}", root, stored.root)
    _same(f"root of size {head.size} in memory", root, head.root)
    state = StateEntry.parse(read.entries(head.size - 1, head.size)[0])
    _same("map root of the head", stored.trie_root, state.maps["F1"])


class _Reread:
    """Tiles as the entries give them where they hold new ones, and as they are stored elsewhere."""

    def __init__(self, read: Reader, tiles: StoredTiles, old_size: int) -> None:
        self._read = read
        self._tiles = tiles
        self._old_size = old_size

    def tile(self, level: int, n: int, width: int) -> bytes:
        first = n * TILE_WIDTH
        if level == 0:
            hashes = b"".join(map(leaf_hash, self._read.entries(first, first + width)))
            indexed = b"".join(self._read.leaf_hashes(first, first + width))
            _same(f"leaf hashes of entry bundle {n}", hashes, indexed)
            return hashes
        # The nodes of this level that stood already when the old size was signed.
        kept = max(0, min(width, (self._old_size >> 8 * level) - first))
        stored = self._tiles.tile(level, n, kept) if kept else b""
        return stored + b"".join(self._node(level, first + i) for i in range(kept, width))

    def _node(self, level: int, n: int) -> bytes:
        data = self.tile(level - 1, n, TILE_WIDTH)
        _same(f"tile {level - 1}/{n}", self._tiles.tile(level - 1, n, TILE_WIDTH), data)
        return root_of([data[i : i + HASH_LENGTH] for i in range(0, len(data), HASH_LENGTH)])


def _same(what: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise Damaged(what, found.hex()[:200], wanted.hex()[:200])
