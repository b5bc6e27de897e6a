"""The stored tree and trie, as ``quotary.tlog`` reads them.

No partial tile is stored: a partial is a prefix of the full tile, or of the open tile in the head's frontier.
"""

import hashlib
from collections.abc import Mapping, Sequence

from quotary.errors import Malformed
from quotary.tlog import trie
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import HASH_LENGTH, leaf_hash
from quotary.tlog.tiles import TILE_WIDTH, encode_entry_bundle
from quotary.tlog.trie_node import Inner, bit_of, parse_node
from registry.errors import Damaged, NotPublished
from registry.store import Reader

KEPT_TILES = 512
KEPT_NODES = 65_536


class StoredTiles:
    """Tiles of the committed log (a ``HashReader``); full ones are kept in memory."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._full: dict[tuple[int, int], bytes] = {}
        self._frontier = Frontier()

    def tile(self, level: int, n: int, width: int) -> bytes:
        """Give the first ``width`` hashes of a tile, 32 bytes each."""
        data = self._full.get((level, n)) or self._open(level, n)
        if len(data) < width * HASH_LENGTH:
            data = self._stored(level, n) or self._newly_open(level, n)
        if len(data) < width * HASH_LENGTH:
            # The tile may have become full between the two reads.
            data = self._stored(level, n) or data
        if len(data) < width * HASH_LENGTH:
            raise Malformed(f"tile {level}/{n} has {len(data) // HASH_LENGTH} hashes, wanted {width}")
        return data[: width * HASH_LENGTH]

    def entries(self, n: int, width: int) -> bytes:
        """Give entry bundle ``n`` cut to ``width`` entries."""
        return encode_entry_bundle(self.entries_of(n, 0, width))

    def entries_of(self, n: int, start: int, stop: int) -> list[bytes]:
        """Give entries ``start`` to ``stop - 1`` of bundle ``n``, or raise ``Damaged`` where one changed."""
        entries = self._read.entries(n * TILE_WIDTH + start, n * TILE_WIDTH + stop)
        hashes = self.tile(0, n, stop)[start * HASH_LENGTH :]
        found = b"".join(map(leaf_hash, entries))
        if found != hashes:
            raise Damaged(f"leaf hashes of entry bundle {n}", found.hex()[:200], hashes.hex()[:200])
        return entries

    def _stored(self, level: int, n: int) -> bytes | None:
        data = self._read.tile(level, n)
        if data is not None:
            if len(self._full) >= KEPT_TILES:
                self._full.clear()
            self._full[level, n] = data
        return data

    def _open(self, level: int, n: int) -> bytes:
        """Give what the head that was read last has of an open tile; it is a prefix of what it has now."""
        is_open = (self._frontier.size >> 8 * level) // TILE_WIDTH == n
        return self._frontier.tile(level) if is_open else b""

    def _newly_open(self, level: int, n: int) -> bytes:
        head = self._read.head()
        if head is None:
            raise NotPublished("the log is empty", 0)
        self._frontier = Frontier.parse(head.frontier)
        return self._open(level, n)


class StoredNodes:
    """Trie nodes of the database (a ``NodeStore``); ``new`` collects what is put and not yet committed."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._kept: dict[bytes, bytes] = {}
        self.new: dict[bytes, bytes] = {}

    def get(self, node_hash: bytes) -> bytes:
        return self.get_all([node_hash])[node_hash]

    def get_all(self, node_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found, missing = {}, []
        for node_hash in node_hashes:
            if (data := self.new.get(node_hash) or self._kept.get(node_hash)) is not None:
                found[node_hash] = data
            else:
                missing.append(node_hash)
        return {**found, **self._stored(missing)} if missing else found

    def prepare(self, root: bytes, keys: Sequence[bytes]) -> None:
        """Fetch the nodes on the ways from ``root`` to keys, with one query a level."""
        ways: dict[bytes, list[bytes]] = {} if root == trie.EMPTY else {root: list(keys)}
        while ways:
            below: dict[bytes, list[bytes]] = {}
            for node_hash, data in self.get_all(list(ways)).items():
                node = parse_node(data)
                if isinstance(node, Inner):
                    for key in ways[node_hash]:
                        child = node.right if bit_of(key, node.bit) else node.left
                        below.setdefault(child, []).append(key)
            ways = below

    def put(self, node_hash: bytes, data: bytes) -> None:
        self.new[node_hash] = data

    def begin(self) -> None:
        """Start a transaction: nothing is new. What was put is named by its hash, and still right."""
        self._keep(self.new)
        self.new = {}

    def _stored(self, node_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self._read.nodes(node_hashes)
        for node_hash in node_hashes:
            if node_hash not in found:
                raise Malformed(f"the trie has no node {node_hash.hex()}")
            if (digest := hashlib.sha256(found[node_hash]).digest()) != node_hash:
                raise Damaged("trie node", digest.hex(), node_hash.hex())
        self._keep(found)
        return found

    def _keep(self, nodes: Mapping[bytes, bytes]) -> None:
        if len(self._kept) + len(nodes) > KEPT_NODES:
            self._kept.clear()
        self._kept.update(nodes)
