"""The root of a prefix trie whose pairs lie elsewhere (``docs/formats/trie.md``), for who needs no proofs.

Of the nodes only the hashes of the first levels are kept, one for each prefix of a few bits; what stands
below a prefix is hashed again when one of its keys changes. So a change costs about as many hashes as the
logarithm of the number of keys, and no node is ever stored or read.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import groupby

from quotary.tlog.trie import EMPTY
from quotary.tlog.trie_node import KEY_LENGTH, bit_of, inner_bytes, leaf_bytes

MAX_BITS = 20
"""Two million hashes, about 150 MB."""

_KEY_BITS = 8 * KEY_LENGTH

Pair = tuple[bytes, bytes]
Read = Callable[[bytes, bytes], Iterable[Pair]]
"""Gives the pairs (32 bytes each) from one key to another, both included, in ascending order of the keys."""


def bits_for(count: int) -> int:
    """Choose the length of prefixes for a trie of ``count`` keys: two to four keys to a prefix."""
    return min(MAX_BITS, max(1, count.bit_length() - 2))


class Summary:
    """The hashes of one trie down to ``bits`` bits; reads all pairs once.

    The hash over a prefix stands at ``1 << length | prefix``, the root at 1; None where there are no keys.
    """

    def __init__(self, read: Read, bits: int) -> None:
        self.bits = bits
        self._read = read
        self._hashes: list[bytes | None] = [None] * (2 << bits)
        for place, pairs in groupby(read(bytes(KEY_LENGTH), b"\xff" * KEY_LENGTH), self._place_of):
            self._hashes[place] = subtree(list(pairs))
        for place in range((1 << bits) - 1, 0, -1):
            self._join(place)

    @property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return self._hashes[1] or EMPTY

    def update(self, keys: Iterable[bytes]) -> bytes:
        """Give the root after the pairs of these keys were set where pairs are read."""
        rest = _KEY_BITS - self.bits
        places = {1 << self.bits | int.from_bytes(key) >> rest for key in keys}
        for place in places:
            first = (place ^ 1 << self.bits) << rest
            last = first | (1 << rest) - 1
            self._hashes[place] = subtree(
                list(self._read(first.to_bytes(KEY_LENGTH), last.to_bytes(KEY_LENGTH)))
            )
        for _ in range(self.bits):
            places = {place >> 1 for place in places}
            for place in places:
                self._join(place)
        return self.root

    def _place_of(self, pair: Pair) -> int:
        return 1 << self.bits | int.from_bytes(pair[0]) >> _KEY_BITS - self.bits

    def _join(self, place: int) -> None:
        left, right = self._hashes[2 * place], self._hashes[2 * place + 1]
        if left is None or right is None:
            self._hashes[place] = left or right  # a fork stands only where keys differ
        else:
            self._hashes[place] = sha256(inner_bytes(place.bit_length() - 1, left, right)).digest()


def subtree(pairs: Sequence[Pair]) -> bytes | None:
    """Give the hash of the node over pairs in ascending order of their keys; None where there are none."""
    if len(pairs) < 2:
        return sha256(leaf_bytes(*pairs[0])).digest() if pairs else None
    fork = _KEY_BITS - (int.from_bytes(pairs[0][0]) ^ int.from_bytes(pairs[-1][0])).bit_length()
    middle = 1
    while not bit_of(pairs[middle][0], fork):
        middle += 1
    left, right = subtree(pairs[:middle]), subtree(pairs[middle:])
    assert left is not None  # the first key has bit 0 there, the last bit 1
    assert right is not None
    return sha256(inner_bytes(fork, left, right)).digest()
