"""Merkle trees over log entries and the proofs in them (RFC 9162 section 2.1, SHA-256).

Inclusion, consistency and subtree consistency (draft-ietf-plants-merkle-tree-certs, "Subtrees") are one
idea: a proof that entries ``[start, end)`` form a node of the tree over ``[0, size)``. An inclusion proof
is that proof for one entry, a consistency proof is that proof for ``start = 0``. ``proof_ranges`` names
the nodes such a proof consists of, and everything else here, and in ``tiles``, follows from it.
"""

import hashlib
from collections.abc import Sequence

from quotary.errors import InvalidProof, Malformed

HASH_LENGTH = 32
MAX_SIZE = 2**63 - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 || entry), 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over these leaf hashes, in log order."""
    if not leaf_hashes:
        return EMPTY_ROOT
    row = list(leaf_hashes)
    while len(row) > 1:
        odd = row[-1:] if len(row) % 2 else []
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)] + odd
    return row[0]


def path_in(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the inclusion path of one of a few leaf hashes that are all at hand, leaf's sibling first."""
    ranges = proof_ranges(index, index + 1, len(leaf_hashes))
    return tuple(root_of(leaf_hashes[low:high]) for low, high in ranges)


def proof_ranges(start: int, end: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges whose node hashes prove ``[start, end)`` to be in a tree of ``size``, in path order.

    Raises ``Malformed`` unless 0 <= start < end <= size and start is a multiple of a power of two >= end
    - start.
    """
    if not 0 <= start < end <= size <= MAX_SIZE:
        raise Malformed(f"entries {start} to {end} cannot be part of a tree of {size}")
    if start % (1 << (end - start - 1).bit_length()):
        raise Malformed(f"entries {start} to {end} do not form a subtree")
    ranges: list[tuple[int, int]] = []
    low, high = 0, size
    while (low, high) != (start, end):
        if high <= end and low > start:
            # The subtree is not itself a node here: this node is its right end, and the proof starts from it.
            ranges.append((low, high))
            break
        middle = low + _left_size(high - low)
        if end <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return tuple(reversed(ranges))


def root_from_path(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """Return the root that ``path`` gives to the tree of ``size`` with leaf hash ``leaf`` at ``index``."""
    return _climb(index, index + 1, size, leaf, path)[1]


def verify_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Return if leaf hash ``leaf`` stands at ``index`` of the tree (RFC 9162 section 2.1.3.2), else raise.

    path: 32-byte hashes, the leaf's sibling first. Raises ``InvalidProof``, or ``Malformed`` for
    impossible numbers and lengths.
    """
    if root_from_path(index, size, leaf, path) != _hash(root):
        raise InvalidProof(f"the path of index {index} does not lead to the root of size {size}")


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> None:
    """Return if the tree of ``size`` continues that of ``old_size`` (RFC 9162 section 2.1.4.2), else raise.

    ``old_size`` 0 is ``Malformed``: nothing can be proven about the empty tree, callers that allow it say
    so themselves.
    """
    verify_subtree(0, old_size, size, old_root, root, path)


def verify_subtree(
    start: int, end: int, size: int, subtree_root: bytes, root: bytes, path: Sequence[bytes]
) -> None:
    """Return if the subtree over entries ``[start, end)`` is part of the tree of ``size``, else raise."""
    found_subtree, found_root = _climb(start, end, size, subtree_root, path)
    if found_subtree != subtree_root:
        raise InvalidProof(f"the path does not lead to the root over entries {start} to {end}")
    if found_root != _hash(root):
        raise InvalidProof(f"the path over entries {start} to {end} does not lead to the root of size {size}")


def _climb(
    start: int, end: int, size: int, subtree_root: bytes, path: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Return the roots over ``[start, end)`` and over the whole tree that ``path`` leads to."""
    ranges = proof_ranges(start, end, size)
    if len(path) != len(ranges):
        raise InvalidProof(
            f"path has {len(path)} hashes, entries {start} to {end} of {size} need {len(ranges)}"
        )
    steps = list(zip(ranges, map(_hash, path), strict=True))
    position, subtree, tree = start, _hash(subtree_root), subtree_root
    if steps and start <= steps[0][0][0] < end:
        (position, _), subtree = steps.pop(0)
        tree = subtree
    for (low, _), sibling in steps:
        if low > position:
            tree = node_hash(tree, sibling)
            continue
        tree = node_hash(sibling, tree)
        if low >= start:
            subtree = node_hash(sibling, subtree)
    return subtree, tree


def _hash(value: bytes) -> bytes:
    if len(value) != HASH_LENGTH:
        raise Malformed(f"a hash has {HASH_LENGTH} bytes, found {len(value)}")
    return value


def _left_size(size: int) -> int:
    """Return the largest power of two below ``size``, for sizes from 2."""
    return 1 << (size - 1).bit_length() - 1
