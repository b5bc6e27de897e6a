"""Tiles: a log as static files, and proofs computed from them (c2sp.org/tlog-tiles).

A tile of level L holds up to 256 hashes; hash i of the level is the root over entries ``[i * 256^L, (i +
1) * 256^L)``. A partial tile is a byte prefix of the later full one, so nobody ever needs to store it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from quotary.errors import Malformed
from quotary.tlog.merkle import EMPTY_ROOT, HASH_LENGTH, MAX_SIZE, node_hash, proof_ranges

TILE_WIDTH = 256
TILE_HEIGHT = 8
MAX_LEVEL = 63
MAX_ENTRY_LENGTH = 65_535

_CACHED_TILES = 2048
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class HashReader(Protocol):
    """Where tiles come from. They need no trust: a wrong tile gives a proof that does not verify."""

    def tile(self, level: int, n: int, width: int) -> bytes:
        """Return exactly ``32 * width`` bytes: the first ``width`` hashes of tile ``n`` of ``level``."""


@dataclass(frozen=True, slots=True)
class TilePath:
    """What a tile's path names.

    level: 0 to 63, or None for an entry bundle
    n:     number of the tile within its level
    width: 1 to 256 hashes or entries
    """

    level: int | None
    n: int
    width: int = TILE_WIDTH

    def __str__(self) -> str:
        return _path("entries" if self.level is None else str(self.level), self.n, self.width)


def tile_path(level: int, n: int, width: int = TILE_WIDTH) -> str:
    """Return e.g. ``tile/0/x001/x234/067.p/8``."""
    return str(TilePath(level, n, width))


def entries_path(n: int, width: int = TILE_WIDTH) -> str:
    """Return the path of entry bundle ``n``, e.g. ``tile/entries/000``."""
    return str(TilePath(None, n, width))


def parse_tile_path(path: str) -> TilePath:
    """Read a path back; a second spelling of the same tile is ``Malformed``."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise Malformed("not the path of a tile")
    kind, groups, width = match.groups()
    found = TilePath(
        None if kind == "entries" else int(kind),
        int(groups.replace("x", "").replace("/", "")),
        TILE_WIDTH if width is None else int(width),
    )
    full_width_spelt_out = width is not None and found.width >= TILE_WIDTH
    if (found.level or 0) > MAX_LEVEL or full_width_spelt_out or str(found) != path:
        raise Malformed("not the canonical path of a tile")
    return found


def width_at(level: int, n: int, size: int) -> int:
    """Return how many hashes (on level 0 also entries) tile ``n`` has in a tree of ``size``: 0 to 256."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - n * TILE_WIDTH))


def partial_widths(size: int) -> tuple[int, ...]:
    """Return the width of the open tile of each level of a tree of ``size``, 0 to 255, from level 0 up."""
    levels = (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT
    return tuple(size >> TILE_HEIGHT * level & TILE_WIDTH - 1 for level in range(levels))


def encode_entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Return 1 to 256 entries, each behind its length as two big-endian bytes."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise Malformed(f"an entry bundle holds 1 to {TILE_WIDTH} entries, found {len(entries)}")
    for entry in entries:
        if len(entry) > MAX_ENTRY_LENGTH:
            raise Malformed(f"an entry has at most {MAX_ENTRY_LENGTH} bytes, found {len(entry)}")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def decode_entry_bundle(data: bytes, *, width: int | None = None) -> tuple[bytes, ...]:
    """Return the entries of a bundle; with ``width``, exactly so many."""
    entries: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + 2
        position = start + int.from_bytes(data[position:start])
        if position > len(data):
            raise Malformed(f"entry bundle ends within entry {len(entries)}")
        entries.append(data[start:position])
    wanted = range(1, TILE_WIDTH + 1) if width is None else range(width, width + 1)
    if len(entries) not in wanted:
        raise Malformed(f"entry bundle has {len(entries)} entries, wanted {wanted[0]} to {wanted[-1]}")
    return tuple(entries)


class HashTree:
    """The tree of one size, read from tiles; each tile is fetched and hashed once while the object lives.

    A full tile belongs to trees of every size, so those that ``resized`` gives share them: at most 2048 of 16
    KiB.
    """

    __slots__ = ("_full", "_open", "_reader", "size")

    def __init__(self, size: int, reader: HashReader) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise Malformed(f"a tree cannot have {size} entries")
        self.size = size
        self._reader = reader
        self._full: dict[tuple[int, int], tuple[bytes, ...]] = {}
        self._open: dict[tuple[int, int], tuple[bytes, ...]] = {}

    def resized(self, size: int) -> "HashTree":
        """Return the tree of another size over the same tiles."""
        other = HashTree(size, self._reader)
        other._full = self._full
        return other

    def root(self) -> bytes:
        """Return the root, 32 bytes."""
        return self._range_root(0, self.size) if self.size else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at ``index``."""
        if not 0 <= index < self.size:
            raise Malformed(f"a tree of {self.size} has no index {index}")
        return self._node(0, index)

    def inclusion_path(self, index: int) -> tuple[bytes, ...]:
        """Return the hashes that prove the entry at ``index``, its sibling first."""
        return self.subtree_path(index, index + 1)

    def consistency_path(self, old_size: int) -> tuple[bytes, ...]:
        """Return the hashes that prove this tree to continue that of ``old_size``, from 1 entry on."""
        return self.subtree_path(0, old_size)

    def subtree_path(self, start: int, end: int) -> tuple[bytes, ...]:
        """Return the hashes that prove entries ``[start, end)`` to be a subtree."""
        return tuple(self._range_root(low, high) for low, high in proof_ranges(start, end, self.size))

    def _range_root(self, low: int, high: int) -> bytes:
        """Return the root over ``[low, high)``; low is a multiple of a power of two >= high - low > 0."""
        height = _lowest_bit(high - low)
        root = self._node(height, (high >> height) - 1)
        high -= 1 << height
        while high > low:
            height = _lowest_bit(high - low)
            root = node_hash(self._node(height, (high >> height) - 1), root)
            high -= 1 << height
        return root

    def _node(self, height: int, index: int) -> bytes:
        """Return the root over the ``2^height`` entries from ``index * 2^height``."""
        level, row = divmod(height, TILE_HEIGHT)
        n, column = divmod(index, TILE_WIDTH >> row)
        return self._rows(level, n)[row][column * HASH_LENGTH : (column + 1) * HASH_LENGTH]

    def _rows(self, level: int, n: int) -> tuple[bytes, ...]:
        """Return a tile's hashes and the rows of full nodes above them."""
        width = width_at(level, n, self.size)
        kept = self._full if width == TILE_WIDTH else self._open
        rows = kept.get((level, n))
        if rows is None:
            data = self._reader.tile(level, n, width)
            if len(data) != width * HASH_LENGTH:
                raise Malformed(f"{tile_path(level, n, width)} has {len(data)} bytes")
            rows = _rows_over(data)
            if len(kept) >= _CACHED_TILES:
                kept.clear()
            kept[level, n] = rows
        return rows


def _rows_over(tile: bytes) -> tuple[bytes, ...]:
    rows = [tile]
    while len(below := rows[-1]) > HASH_LENGTH:
        pairs = range(0, len(below) - HASH_LENGTH, 2 * HASH_LENGTH)
        rows.append(b"".join(sha256(b"\x01" + below[i : i + 2 * HASH_LENGTH]).digest() for i in pairs))
    return tuple(rows)


def root_at(size: int, reader: HashReader) -> bytes:
    """Return the root of the tree of ``size``."""
    return HashTree(size, reader).root()


def inclusion_path(index: int, size: int, reader: HashReader) -> tuple[bytes, ...]:
    """Return the inclusion path of ``index`` in the tree of ``size``, the leaf's sibling first."""
    return HashTree(size, reader).inclusion_path(index)


def consistency_path(old_size: int, size: int, reader: HashReader) -> tuple[bytes, ...]:
    """Return the consistency path from ``old_size`` (1 or more) to ``size``."""
    return HashTree(size, reader).consistency_path(old_size)


def _lowest_bit(number: int) -> int:
    return (number & -number).bit_length() - 1


def _path(kind: str, n: int, width: int) -> str:
    digits = f"{n:03d}"
    groups = f"{n:0{-(-len(digits) // 3) * 3}d}"
    parts = [groups[i : i + 3] for i in range(0, len(groups), 3)]
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return "/".join(["tile", kind, *(f"x{part}" for part in parts[:-1]), parts[-1]]) + suffix
