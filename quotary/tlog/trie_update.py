"""Many keys of a prefix trie set at once (``docs/formats/trie.md``).

A set of pairs has one trie, whatever the order of insertion. So all keys go down together, with one read a
level, and each node above them is hashed once instead of once a key.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from quotary.errors import Malformed
from quotary.tlog.trie_node import KEY_LENGTH, Inner, Leaf, NodeStore, checked_node

_BITS = 8 * KEY_LENGTH


def merge(store: NodeStore, root: bytes, changes: Mapping[bytes, bytes]) -> bytes:
    """Set every key of ``changes`` (at least one; 32 bytes each) in a trie, and return the new root."""
    work = _Merge(store, changes)
    work.descend(root)
    return work.into(root, 0, len(changes))


def build(store: NodeStore, changes: Mapping[bytes, bytes]) -> bytes:
    """Make a trie of the keys of ``changes``, at least one, and return its root."""
    return _Merge(store, changes).build(0, len(changes))


class _Merge:
    """Keys in ascending order, of which spans ``low`` to ``high - 1`` meet a part of the old trie.

    numbers: the keys as integers; nearest: for each, that of the leaf at which it ends in the old trie
    """

    def __init__(self, store: NodeStore, changes: Mapping[bytes, bytes]) -> None:
        self._store = store
        self._pairs = sorted(changes.items())
        self._numbers = [int.from_bytes(key) for key, _ in self._pairs]
        self._nearest = [0] * len(self._pairs)
        self._nodes: dict[bytes, Leaf | Inner] = {}

    def descend(self, root: bytes) -> None:
        """Read every node that some key passes, all those of a level at once."""
        level: dict[bytes, tuple[Sequence[int], int]] = {root: (range(len(self._pairs)), -1)}
        while level:
            found = self._store.get_all(list(level))
            below: dict[bytes, tuple[Sequence[int], int]] = {}
            for node_hash, (items, above) in level.items():
                node = self._nodes[node_hash] = checked_node(node_hash, found[node_hash])
                if isinstance(node, Leaf):
                    for item in items:
                        self._nearest[item] = int.from_bytes(node.key)
                    continue
                if node.bit <= above:
                    raise Malformed(f"trie node of bit {node.bit} stands below bit {above}")
                ones = [item for item in items if self._numbers[item] >> _BITS - 1 - node.bit & 1]
                zeros = [item for item in items if not self._numbers[item] >> _BITS - 1 - node.bit & 1]
                below |= {child: (some, node.bit) for child, some in _children(node, zeros, ones)}
            level = below

    def into(self, node_hash: bytes, low: int, high: int) -> bytes:
        """Put a span into the old trie below ``node_hash``, through which all its keys pass."""
        if low == high:
            return node_hash
        node, near = self._nodes[node_hash], self._nearest[low]
        # The first and the last differ from the old keys as early as any of the span.
        differ = max(self._numbers[low] ^ near, self._numbers[high - 1] ^ near)
        fork = _BITS - differ.bit_length()
        if isinstance(node, Inner) and fork >= node.bit:
            middle = self._split(node.bit, low, high)
            left, right = self.into(node.left, low, middle), self.into(node.right, middle, high)
            return self._put(Inner(node.bit, left, right))
        if fork == _BITS:
            return self._put(Leaf(*self._pairs[low]))
        middle = self._split(fork, low, high)
        if near >> _BITS - 1 - fork & 1:
            return self._put(Inner(fork, self.build(low, middle), self.into(node_hash, middle, high)))
        return self._put(Inner(fork, self.into(node_hash, low, middle), self.build(middle, high)))

    def build(self, low: int, high: int) -> bytes:
        """Make a trie of a span alone."""
        if high - low == 1:
            return self._put(Leaf(*self._pairs[low]))
        fork = _BITS - (self._numbers[low] ^ self._numbers[high - 1]).bit_length()
        middle = self._split(fork, low, high)
        return self._put(Inner(fork, self.build(low, middle), self.build(middle, high)))

    def _split(self, bit: int, low: int, high: int) -> int:
        """Give where in a span that is equal before ``bit`` the keys begin that have it set."""
        rest = _BITS - 1 - bit
        first = (self._numbers[low] >> rest | 1) << rest
        return bisect_left(self._numbers, first, low, high)

    def _put(self, node: Leaf | Inner) -> bytes:
        data = bytes(node)
        node_hash = hashlib.sha256(data).digest()
        self._store.put(node_hash, data)
        return node_hash


def _children(node: Inner, zeros: list[int], ones: list[int]) -> list[tuple[bytes, list[int]]]:
    return [(child, items) for child, items in ((node.left, zeros), (node.right, ones)) if items]
