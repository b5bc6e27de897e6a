"""The growing edge of a tree: all that a sequencer needs to append entries (c2sp.org/tlog-tiles).

The state is the open tile of each level, at most 255 hashes each; it gives the root, every partial tile
of the current size, and the full tiles that an append completes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quotary.errors import Malformed
from quotary.tlog.merkle import EMPTY_ROOT, HASH_LENGTH, MAX_SIZE, node_hash, root_of
from quotary.tlog.tiles import TILE_WIDTH, partial_widths

_TILE_LENGTH = TILE_WIDTH * HASH_LENGTH


@dataclass(frozen=True, slots=True)
class FullTile:
    """A tile that an append completed; 8,192 bytes that never change again."""

    level: int
    n: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of ``size`` entries by its open tiles.

    size:  number of entries, 0 or more
    tiles: the open tile of each level from 0 up, 32 bytes a hash; as many levels as the size has
    """

    size: int = 0
    tiles: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> "Frontier":
        """Read the state back: the size as eight big-endian bytes, then the open tiles from level 0 up."""
        size = int.from_bytes(data[:8])
        widths = partial_widths(size)
        if size > MAX_SIZE or len(data) != 8 + HASH_LENGTH * sum(widths):
            raise Malformed(f"not the frontier of a tree: {len(data)} bytes for size {size}")
        tiles = []
        position = 8
        for width in widths:
            tiles.append(data[position : position + width * HASH_LENGTH])
            position += width * HASH_LENGTH
        return cls(size, tuple(tiles))

    def __bytes__(self) -> bytes:
        return self.size.to_bytes(8) + b"".join(self.tiles)

    def append(self, leaf_hashes: Sequence[bytes]) -> "tuple[Frontier, tuple[FullTile, ...]]":
        """Return the frontier after these entries, and the tiles that they completed."""
        size = self.size + len(leaf_hashes)
        if size > MAX_SIZE:
            raise Malformed(f"a tree cannot have {size} entries")
        if any(len(leaf) != HASH_LENGTH for leaf in leaf_hashes):
            raise Malformed(f"a leaf hash has {HASH_LENGTH} bytes")
        tiles: list[bytes] = []
        full: list[FullTile] = []
        carried = b"".join(leaf_hashes)
        level = 0
        while level < len(self.tiles) or carried:
            hashes = (self.tiles[level] if level < len(self.tiles) else b"") + carried
            first = (self.size >> 8 * level) // TILE_WIDTH
            cut = len(hashes) - len(hashes) % _TILE_LENGTH
            done = [hashes[i : i + _TILE_LENGTH] for i in range(0, cut, _TILE_LENGTH)]
            full += [FullTile(level, first + i, data) for i, data in enumerate(done)]
            tiles.append(hashes[cut:])
            carried = b"".join(root_of(_hashes(data)) for data in done)
            level += 1
        return Frontier(size, tuple(tiles)), tuple(full)

    def tile(self, level: int) -> bytes:
        """Return the open tile of ``level``; empty where the level has none."""
        return self.tiles[level] if level < len(self.tiles) else b""

    def root(self) -> bytes:
        """Return the root, 32 bytes."""
        root: bytes | None = None
        for tile in self.tiles:
            row = _hashes(tile)
            while row:
                # The lowest set bit of the width is the rightmost full subtree.
                node = root_of(row[-(len(row) & -len(row)) :])
                del row[-(len(row) & -len(row)) :]
                root = node if root is None else node_hash(node, root)
        return EMPTY_ROOT if root is None else root


def _hashes(tile: bytes) -> list[bytes]:
    return [tile[i : i + HASH_LENGTH] for i in range(0, len(tile), HASH_LENGTH)]
