"""A Merkle prefix trie over 32-byte keys and values, with proofs (``docs/formats/trie.md``).

A leaf is one key with its value; an inner node stands at the first bit ``B`` in which the keys below it
differ (bits count from the most significant of the first byte), keys with bit 0 on its left. So a set of
pairs has exactly one trie, whatever the order of insertion, and an empty one. Nodes are stored under
their hash and never change.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from quotary.errors import InvalidProof, Malformed
from quotary.tlog.trie_node import (
    HASH_LENGTH,
    KEY_LENGTH,
    LEAF_BODY_LENGTH,
    Inner,
    Leaf,
    NodeStore,
    bit_of,
    checked_node,
    leaf_body,
    parse_leaf_body,
    parse_varint,
    varint,
)
from quotary.tlog.trie_update import build, merge

EMPTY = hashlib.sha256(b"").digest()


class MemoryStore:
    """Nodes in a dictionary, for auditors and tests."""

    __slots__ = ("nodes",)

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}

    def get(self, node_hash: bytes) -> bytes:
        """Return a node, or raise ``Malformed`` where there is none."""
        try:
            return self.nodes[node_hash]
        except KeyError as error:
            raise Malformed(f"no trie node {node_hash.hex()}") from error

    def get_all(self, node_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {node_hash: self.get(node_hash) for node_hash in node_hashes}

    def put(self, node_hash: bytes, data: bytes) -> None:
        """Keep a node."""
        self.nodes[node_hash] = data


def insert(store: NodeStore, root: bytes, key: bytes, value: bytes) -> bytes:
    """Set ``key`` to ``value`` (32 bytes each) and return the new root; old nodes stay."""
    return update(store, root, {key: value})


def update(store: NodeStore, root: bytes, changes: Mapping[bytes, bytes]) -> bytes:
    """Set every key of ``changes`` and return the new root; only nodes of the new trie are stored."""
    for key, value in changes.items():
        _checked(key, "key")
        _checked(value, "value")
    if not changes:
        return root
    return build(store, changes) if root == EMPTY else merge(store, root, changes)


def lookup(store: NodeStore, root: bytes, key: bytes) -> bytes | None:
    """Return the value of ``key``, or None where the trie does not have it."""
    _checked(key, "key")
    if root == EMPTY:
        return None
    _, nearest = _descend(store, root, key)
    return nearest.value if nearest.key == key else None


def items(store: NodeStore, root: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every pair, ordered by key."""
    waiting = [] if root == EMPTY else [root]
    while waiting:
        node = _get(store, waiting.pop())
        if isinstance(node, Leaf):
            yield node.key, node.value
        else:
            waiting += [node.right, node.left]


def prove(store: NodeStore, root: bytes, key: bytes) -> bytes:
    """Return a proof of the value that ``key`` has, or, where ``lookup`` gives None, of its absence."""
    _checked(key, "key")
    if root == EMPTY:
        return b""
    path, nearest = _descend(store, root, key)
    steps = b"".join(varint(inner.bit) + _sibling(inner, key) for inner in reversed(path))
    return steps if nearest.key == key else leaf_body(nearest.key, nearest.value) + steps


def verify_presence(root: bytes, key: bytes, value: bytes, proof: bytes) -> None:
    """Return if the trie maps ``key`` to ``value``, else raise ``InvalidProof`` or ``Malformed``.

    proof: steps from leaf to root, each the fork's bit as varint and the sibling's hash
    """
    leaf = Leaf(_checked(key, "key"), _checked(value, "value"))
    if _climb(leaf, _steps(proof)) != root:
        raise InvalidProof("the proof does not lead from key and value to the map root")


def verify_absence(root: bytes, key: bytes, proof: bytes) -> None:
    """Return if the trie has no ``key``, else raise ``InvalidProof`` or ``Malformed``.

    proof: the leaf that stands where ``key`` would, then its steps; nothing for the empty trie
    """
    _checked(key, "key")
    if not proof:
        if root != EMPTY:
            raise InvalidProof("an empty absence proof holds for the empty map only")
        return
    leaf = parse_leaf_body(proof[:LEAF_BODY_LENGTH])
    steps = _steps(proof[LEAF_BODY_LENGTH:])
    if leaf.key == key:
        raise InvalidProof("the absence proof shows the key itself")
    if any(bit_of(leaf.key, bit) != bit_of(key, bit) for bit, _ in steps):
        raise InvalidProof("the absence proof is about another place in the map")
    if _climb(leaf, steps) != root:
        raise InvalidProof("the absence proof does not lead to the map root")


def _descend(store: NodeStore, root: bytes, key: bytes) -> tuple[list[Inner], Leaf]:
    """Return the forks that ``key`` passes, from the root down, and the leaf it ends at."""
    path: list[Inner] = []
    node = _get(store, root)
    while isinstance(node, Inner):
        if path and node.bit <= path[-1].bit:
            raise Malformed(f"trie node of bit {node.bit} stands below bit {path[-1].bit}")
        path.append(node)
        node = _get(store, _child(node, key))
    return path, node


def _climb(leaf: Leaf, steps: list[tuple[int, bytes]]) -> bytes:
    node = hashlib.sha256(bytes(leaf)).digest()
    for bit, sibling in steps:
        node = hashlib.sha256(bytes(_fork(bit, leaf.key, node, sibling))).digest()
    return node


def _steps(proof: bytes) -> list[tuple[int, bytes]]:
    """Read steps from leaf to root; their bits must fall strictly, so there are at most 256."""
    steps: list[tuple[int, bytes]] = []
    while proof:
        bit, length = parse_varint(proof)
        sibling = proof[length : length + HASH_LENGTH]
        if len(sibling) != HASH_LENGTH:
            raise Malformed("the trie proof ends within a step")
        if steps and bit >= steps[-1][0]:
            raise Malformed(f"trie proof has bit {bit} above bit {steps[-1][0]}")
        steps.append((bit, sibling))
        proof = proof[length + HASH_LENGTH :]
    return steps


def _fork(bit: int, key: bytes, node: bytes, other: bytes) -> Inner:
    return Inner(bit, other, node) if bit_of(key, bit) else Inner(bit, node, other)


def _child(inner: Inner, key: bytes) -> bytes:
    return inner.right if bit_of(key, inner.bit) else inner.left


def _sibling(inner: Inner, key: bytes) -> bytes:
    return inner.left if bit_of(key, inner.bit) else inner.right


def _get(store: NodeStore, node_hash: bytes) -> Leaf | Inner:
    return checked_node(node_hash, store.get(node_hash))


def _checked(value: bytes, what: str) -> bytes:
    if len(value) != KEY_LENGTH:
        raise Malformed(f"a trie {what} has {KEY_LENGTH} bytes, found {len(value)}")
    return value
