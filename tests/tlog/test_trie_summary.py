"""The root without nodes: that of the trie with all its nodes, whatever the prefixes and the order."""

import hashlib
from bisect import insort
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.tlog import trie
from quotary.tlog.trie_summary import MAX_BITS, Pair, Summary, bits_for

# Keys that share many bits as well as keys that do not.
keys = st.binary(min_size=32, max_size=32) | st.integers(0, 40).map(lambda number: bytes([number]) * 32)
near = st.tuples(st.sampled_from([bytes(32), b"\xff" * 32, b"\xa5" * 32]), st.integers(0, 255)).map(
    lambda pair: (int.from_bytes(pair[0]) ^ 1 << pair[1]).to_bytes(32)
)
rounds = st.lists(
    st.dictionaries(keys | near, st.binary(min_size=32, max_size=32), max_size=12), min_size=1, max_size=4
)


class Pairs:
    """Pairs in a sorted list."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []

    def set(self, changes: dict[bytes, bytes]) -> None:
        for key in changes.keys() - self.values.keys():
            insort(self.keys, key)
        self.values |= changes

    def read(self, first: bytes, last: bytes) -> Iterator[Pair]:
        return ((key, self.values[key]) for key in self.keys if first <= key <= last)


@given(rounds, st.integers(1, 10))
def test_the_root_is_that_of_the_trie_after_each_update(made: list[dict[bytes, bytes]], bits: int) -> None:
    pairs, nodes, root = Pairs(), trie.MemoryStore(), trie.EMPTY
    summary = Summary(pairs.read, bits)
    assert summary.root == trie.EMPTY
    for changes in made:
        pairs.set(changes)
        root = trie.update(nodes, root, changes)
        assert summary.update(changes) == root == summary.root
        assert Summary(pairs.read, bits).root == root


def test_a_thousand_keys_have_one_root_at_every_length_of_prefixes() -> None:
    pairs = Pairs()
    pairs.set({hashlib.sha256(b"%d" % number).digest(): bytes([number % 256]) * 32 for number in range(1000)})
    wanted = trie.update(trie.MemoryStore(), trie.EMPTY, pairs.values)
    assert {Summary(pairs.read, bits).root for bits in range(1, 15)} == {wanted}


def test_an_update_reads_only_the_prefixes_of_its_keys() -> None:
    pairs = Pairs()
    pairs.set({hashlib.sha256(b"%d" % number).digest(): bytes(32) for number in range(1000)})
    read: list[Pair] = []

    def noted(first: bytes, last: bytes) -> Iterator[Pair]:
        for pair in pairs.read(first, last):
            read.append(pair)
            yield pair

    summary = Summary(noted, 8)
    read.clear()
    changed = {pairs.keys[0]: b"\x01" * 32, pairs.keys[500]: b"\x02" * 32}
    pairs.set(changed)
    summary.update(changed)
    assert {key[0] for key, _ in read} == {key[0] for key in changed}


@pytest.mark.parametrize(
    ("count", "bits"), [(0, 1), (1, 1), (4, 1), (8, 2), (1_000_000, 18), (1 << 40, MAX_BITS)]
)
def test_prefixes_are_as_long_as_the_trie_is_large(count: int, bits: int) -> None:
    assert bits_for(count) == bits
