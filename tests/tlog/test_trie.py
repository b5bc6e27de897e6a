"""The prefix trie: peers' vectors, uniqueness, and every way to break a proof."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidProof, Malformed
from quotary.tlog import trie
from quotary.tlog.trie import EMPTY, MemoryStore


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def build(pairs):
    store, root = MemoryStore(), EMPTY
    for key, value in pairs.items():
        root = trie.insert(store, root, key, value)
    return store, root


def some_pairs(count):
    return {digest(f"key {n}"): digest(f"value {n}") for n in range(count)}


def unhex(text):
    return bytes.fromhex("" if text == "''" else text)


def reference_root(pairs):
    """The definition, word for word, for keys of any length that is equal within the set."""

    def varint(number):
        assert number < 2**14
        return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])

    def bit(key, position):
        return key[position // 8] >> (7 - position % 8) & 1

    if not pairs:
        return hashlib.sha256(b"").digest()
    keys = sorted(pairs)
    if len(keys) == 1:
        key, value = keys[0], pairs[keys[0]]
        data = b"\x00" + varint(len(key)) + key + varint(len(value)) + value
        return hashlib.sha256(data).digest()
    first = next(p for p in range(8 * len(keys[0])) if bit(keys[0], p) != bit(keys[-1], p))
    left = reference_root({key: pairs[key] for key in keys if not bit(key, first)})
    right = reference_root({key: pairs[key] for key in keys if bit(key, first)})
    return hashlib.sha256(b"\x01" + varint(first) + left + right).digest()


def test_published_tree_hashes(vectors):
    pairs, ours, others = {}, 0, 0
    for line in (vectors / "tlog" / "mpt" / "treehash-subset.txt").read_text().splitlines():
        words = line.split()
        if words[0] == "kv":
            pairs[unhex(words[1])] = unhex(words[2])
        elif words[0] == "hash":
            if all(len(key) == len(value) == 32 for key, value in pairs.items()):
                ours += 1
                assert build(pairs)[1] == unhex(words[1])
            else:
                others += 1
                if len({len(key) for key in pairs}) == 1:
                    assert reference_root(pairs) == unhex(words[1])
                with pytest.raises(Malformed):
                    build(pairs)
            pairs = {}
    assert (ours, others) == (9, 7)


def read_cases(path):
    case = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, value = line.split(" ", 1)
        case[name] = value
        if name == "verify":
            yield case
            case = {}


def test_published_proofs(vectors):
    count = 0
    for case in read_cases(vectors / "tlog" / "mpt" / "verify-subset.txt"):
        count += 1
        root, key, proof = unhex(case["snap"]), unhex(case["key"]), unhex(case["proof"])

        def check(root=root, key=key, proof=proof, value=case["val"]):
            if value == "-":
                trie.verify_absence(root, key, proof)
            else:
                trie.verify_presence(root, key, unhex(value), proof)

        if len(key) != 32:
            with pytest.raises(Malformed, match="has 32 bytes"):
                check()
        elif case["verify"] == "true":
            check()
        else:
            with pytest.raises((InvalidProof, Malformed)):
                check()
    assert count == 15


def test_our_proofs_are_the_published_proofs():
    pairs = {
        unhex("682c42c526e3f5e87eecea25694c435c16a00bf316bd1a8dc6079bcd1d8f9e46"): unhex(
            "6370040cdc5ae2cc980582fd877723e32bea9ed2844ff4ae7218711f161265b3"
        ),
        unhex("e3ee6cc705f06140f832d62316f3cb1c7a324f04d4cba9dc8d0f8125e5f5393c"): unhex(
            "016a4fde9eff72a846636f8e5981cabc9e7d34041a6e9080691259fc9d2bffa8"
        ),
    }
    store, root = build(pairs)
    assert root == unhex("ce1e03bce2008026dd8f68f43b815f3f75bc14f3a2213e334c64230c6ebe8666")
    absent = unhex("c51cbe39ee7ed29027d1c54fffb0b31d0475a502b811bd866b98b66bb0afd1f4")
    assert trie.prove(store, root, absent) == unhex(
        "20e3ee6cc705f06140f832d62316f3cb1c7a324f04d4cba9dc8d0f8125e5f5393c20016a4fde9eff72a846636f8e5981"
        "cabc9e7d34041a6e9080691259fc9d2bffa8005586c5702eb4abc508d685b0833e8f83050c864796d18ae25dc3d22073038fb8"
    )


def test_every_key_is_proven_present_and_every_other_absent():
    pairs = some_pairs(60)
    store, root = build(pairs)
    assert root == reference_root(pairs)
    for key, value in pairs.items():
        assert trie.lookup(store, root, key) == value
        proof = trie.prove(store, root, key)
        trie.verify_presence(root, key, value, proof)
        with pytest.raises(InvalidProof):
            trie.verify_presence(root, key, digest("other"), proof)
        with pytest.raises((InvalidProof, Malformed)):
            trie.verify_absence(root, key, proof)
    for n in range(60):
        key = digest(f"absent {n}")
        assert trie.lookup(store, root, key) is None
        proof = trie.prove(store, root, key)
        trie.verify_absence(root, key, proof)
        with pytest.raises((InvalidProof, Malformed)):
            trie.verify_presence(root, key, digest("value 1"), proof)
    assert list(trie.items(store, root)) == sorted(pairs.items())


def test_the_empty_map_proves_only_absence():
    store, key = MemoryStore(), digest("key")
    assert trie.prove(store, EMPTY, key) == b""
    assert trie.lookup(store, EMPTY, key) is None
    assert list(trie.items(store, EMPTY)) == []
    trie.verify_absence(EMPTY, key, b"")
    with pytest.raises(InvalidProof):
        trie.verify_presence(EMPTY, key, digest("value"), b"")
    with pytest.raises(InvalidProof):
        trie.verify_absence(digest("some root"), key, b"")


def test_an_old_root_still_proves_what_it_proved():
    store, key = MemoryStore(), digest("key 0")
    old = trie.update(store, EMPTY, some_pairs(20))
    new = trie.insert(store, old, key, digest("revoked"))
    trie.verify_presence(old, key, digest("value 0"), trie.prove(store, old, key))
    trie.verify_presence(new, key, digest("revoked"), trie.prove(store, new, key))
    with pytest.raises(InvalidProof):
        trie.verify_presence(new, key, digest("value 0"), trie.prove(store, old, key))


def test_setting_the_same_value_keeps_the_root():
    pairs = some_pairs(5)
    store, root = build(pairs)
    for key, value in pairs.items():
        assert trie.insert(store, root, key, value) == root


def test_an_update_stores_only_nodes_of_the_new_trie():
    pairs = some_pairs(100)
    store = MemoryStore()
    root = trie.update(store, EMPTY, pairs)
    assert root == reference_root(pairs)
    assert len(store.nodes) == 199
    assert trie.update(store, root, {}) == root
    more = {digest("key 3"): digest("changed"), digest("key 200"): digest("value 200")}
    assert trie.update(store, root, more) == reference_root(pairs | more)
    assert trie.update(MemoryStore(), EMPTY, {}) == EMPTY


def test_the_last_bit_can_be_the_fork():
    pairs = {bytes(32): digest("a"), bytes(31) + b"\x01": digest("b"), b"\x80" + bytes(31): digest("c")}
    store, root = build(pairs)
    assert root == reference_root(pairs)
    proof = trie.prove(store, root, bytes(32))
    assert proof.startswith(b"\xff\x01")
    trie.verify_presence(root, bytes(32), digest("a"), proof)


@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), max_size=12))
def test_the_order_of_insertion_does_not_matter(pairs):
    orders = [list(pairs.items()), sorted(pairs.items()), sorted(pairs.items(), reverse=True)]
    assert {build(dict(order))[1] for order in orders} == {reference_root(pairs)}


@given(
    st.sets(st.integers(0, 2**10 - 1), min_size=1, max_size=20),
    st.integers(0, 2**10 - 1),
    st.integers(0, 27),
)
def test_close_keys_are_told_apart(numbers, other, shift):
    def key(number):
        return (number << 8 * shift).to_bytes(32)

    pairs = {key(number): digest(str(number)) for number in numbers}
    store, root = build(pairs)
    assert root == reference_root(pairs)
    proof = trie.prove(store, root, key(other))
    if other in numbers:
        trie.verify_presence(root, key(other), digest(str(other)), proof)
    else:
        trie.verify_absence(root, key(other), proof)


def changes(proof):
    for bit in range(8 * len(proof)):
        changed = bytearray(proof)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    for length in range(len(proof)):
        yield proof[:length]
    yield proof + b"\x00"
    yield proof + bytes(33)
    yield b"\x00" + proof


def test_each_change_to_a_presence_proof_is_refused():
    pairs = some_pairs(12)
    store, root = build(pairs)
    for key, value in list(pairs.items())[:3]:
        for proof in changes(trie.prove(store, root, key)):
            with pytest.raises((InvalidProof, Malformed)):
                trie.verify_presence(root, key, value, proof)


def test_each_change_to_an_absence_proof_is_refused():
    store, root = build(some_pairs(12))
    key = digest("absent")
    for proof in changes(trie.prove(store, root, key)):
        with pytest.raises((InvalidProof, Malformed)):
            trie.verify_absence(root, key, proof)


def test_an_absence_proof_holds_for_its_own_place_only():
    pairs = some_pairs(30)
    store, root = build(pairs)
    proofs = {key: trie.prove(store, root, key) for key in map(digest, "abcdefgh")}
    for key in pairs:
        for proof in proofs.values():
            with pytest.raises(InvalidProof, match=r"another place|key itself"):
                trie.verify_absence(root, key, proof)


def test_steps_must_fall_from_leaf_to_root():
    pairs = {bytes(32): digest("a"), b"\x80" + bytes(31): digest("b"), b"\x40" + bytes(31): digest("c")}
    store, root = build(pairs)
    proof = trie.prove(store, root, bytes(32))
    assert (proof[0], proof[33]) == (1, 0)
    with pytest.raises(Malformed, match="bit 1 above bit 0"):
        trie.verify_presence(root, bytes(32), digest("a"), proof[33:] + proof[:33])
    with pytest.raises(Malformed, match="bit 1 above bit 1"):
        trie.verify_presence(root, bytes(32), digest("a"), proof[:33] + proof[:33])


@pytest.mark.parametrize("missing", [1, 16, 32])
def test_a_proof_that_ends_within_a_step_is_malformed(missing):
    store, root = build({bytes(32): digest("a"), b"\x80" + bytes(31): digest("b")})
    proof = trie.prove(store, root, bytes(32))
    with pytest.raises(Malformed, match="ends within a step"):
        trie.verify_presence(root, bytes(32), digest("a"), proof[:-missing])


@pytest.mark.parametrize("start", [b"\x80\x00", b"\x80\x02", b"\x81\x80", b"\xff\x81\x00", b"\x80"])
def test_a_varint_that_is_not_minimal_or_too_large_is_malformed(start):
    with pytest.raises(Malformed):
        trie.verify_presence(digest("root"), digest("key"), digest("value"), start + bytes(32))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_and_values_have_32_bytes(length):
    store, wrong, right = MemoryStore(), bytes(length), bytes(32)
    for call in (
        lambda: trie.insert(store, EMPTY, wrong, right),
        lambda: trie.insert(store, EMPTY, right, wrong),
        lambda: trie.prove(store, EMPTY, wrong),
        lambda: trie.verify_presence(EMPTY, wrong, right, b""),
        lambda: trie.verify_presence(EMPTY, right, wrong, b""),
        lambda: trie.verify_absence(EMPTY, wrong, b""),
        lambda: trie.lookup(store, EMPTY, wrong),
    ):
        with pytest.raises(Malformed, match="32 bytes"):
            call()


def put_raw(store, data):
    node_hash = hashlib.sha256(data).digest()
    store.put(node_hash, data)
    return node_hash


def test_a_store_that_lies_is_noticed():
    pairs = some_pairs(10)
    store, root = build(pairs)
    key = next(iter(pairs))
    store.nodes[root] = store.nodes[root][:-1] + b"x"
    with pytest.raises(Malformed, match="other bytes"):
        trie.prove(store, root, key)
    del store.nodes[root]
    with pytest.raises(Malformed, match="no trie node"):
        trie.lookup(store, root, key)


def test_a_store_of_broken_nodes_is_malformed():
    store, key = MemoryStore(), bytes(32)
    leaf = trie.insert(store, EMPTY, key, key)
    upside_down = put_raw(store, b"\x01\x05" + leaf + leaf)
    for data in (
        b"\x02" + bytes(64),
        b"\x00" + bytes(66),
        b"\x01",
        b"\x01\x05" + leaf,
        b"\x01\x05" + leaf + leaf + leaf,
        b"\x01\x05" + upside_down + leaf,
        b"\x01\x07" + upside_down + leaf,
    ):
        with pytest.raises(Malformed):
            trie.prove(store, put_raw(store, data), key)
        with pytest.raises(Malformed):
            trie.update(store, put_raw(store, data), {key: key})


class Counting(MemoryStore):
    """Counts the reads."""

    reads = 0

    def get_all(self, node_hashes):
        self.reads += 1
        return super().get_all(node_hashes)


def test_many_keys_are_set_with_one_read_a_level():
    store = Counting()
    root = trie.update(store, EMPTY, some_pairs(500))
    trie.update(store, root, {digest(f"more {number}"): digest("x") for number in range(200)})
    assert store.reads < 30


def test_random_changes_follow_a_plain_dictionary():
    chance = random.Random(7)
    store, root, pairs = MemoryStore(), EMPTY, {}
    for _ in range(30):
        batch = {chance.randbytes(1) + bytes(31): chance.randbytes(32) for _ in range(chance.randrange(1, 9))}
        root = trie.update(store, root, batch)
        pairs |= batch
        assert root == reference_root(pairs)
