"""Merkle proofs: peers' vectors, a second implementation, and every way to break a proof."""

import base64
import json

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidProof, Malformed
from quotary.tlog import merkle


def leaves(size):
    return [merkle.leaf_hash(b"entry %d" % index) for index in range(size)]


def reference_root(hashes):
    """RFC 9162 section 2.1.1, word for word."""
    if not hashes:
        return merkle.EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return merkle.node_hash(reference_root(hashes[:k]), reference_root(hashes[k:]))


def reference_subproof(m, hashes, complete):
    """RFC 9162 section 2.1.4.1, word for word."""
    n = len(hashes)
    if m == n:
        return [] if complete else [reference_root(hashes)]
    k = 1
    while k * 2 < n:
        k *= 2
    if m <= k:
        return [*reference_subproof(m, hashes[:k], complete), reference_root(hashes[k:])]
    return [*reference_subproof(m - k, hashes[k:], False), reference_root(hashes[:k])]


def subtree_path(hashes, start, end):
    return [merkle.root_of(hashes[low:high]) for low, high in merkle.proof_ranges(start, end, len(hashes))]


def consistency_path(hashes, old_size):
    return subtree_path(hashes, 0, old_size)


def subtrees(size):
    for start in range(size):
        for end in range(start + 1, size + 1):
            if start % (1 << (end - start - 1).bit_length()) == 0:
                yield start, end


def load(vectors, kind):
    for file in sorted((vectors / "tlog" / "rfc6962-proofs" / kind).glob("*/*.json")):
        yield file, json.loads(file.read_text())


def unb64(text):
    return base64.b64decode(text or "")


def run(vector, kind):
    path = [unb64(item) for item in vector["proof"] or []]
    if kind == "inclusion":
        merkle.verify_inclusion(
            vector["leafIdx"], vector["treeSize"], unb64(vector["leafHash"]), path, unb64(vector["root"])
        )
    elif kind == "consistency":
        merkle.verify_consistency(
            vector["size1"], vector["size2"], unb64(vector["root1"]), unb64(vector["root2"]), path
        )
    else:
        merkle.verify_subtree(
            vector["start"],
            vector["end"],
            vector["size"],
            unb64(vector["root1"]),
            unb64(vector["root2"]),
            path,
        )


@pytest.mark.parametrize(
    ("kind", "count"), [("inclusion", 53), ("consistency", 43), ("subtreeconsistency", 45)]
)
def test_each_published_proof_has_its_published_outcome(vectors, kind, count):
    seen = 0
    for file, vector in load(vectors, kind):
        seen += 1
        if vector["wantErr"]:
            with pytest.raises((InvalidProof, Malformed)):
                run(vector, kind)
        else:
            try:
                run(vector, kind)
            except (InvalidProof, Malformed) as error:
                pytest.fail(f"{file}: {error}")
    assert seen == count


def test_roots_are_those_of_the_specification():
    for size in range(70):
        assert merkle.root_of(leaves(size)) == reference_root(leaves(size))


def test_consistency_paths_are_those_of_the_specification():
    for size in range(1, 40):
        hashes = leaves(size)
        for old in range(1, size + 1):
            assert consistency_path(hashes, old) == reference_subproof(old, hashes, True)


def test_every_inclusion_proof_up_to_size_40_verifies_and_only_for_its_index():
    for size in range(1, 41):
        hashes = leaves(size)
        root = merkle.root_of(hashes)
        for index in range(size):
            path = merkle.path_in(hashes, index)
            merkle.verify_inclusion(index, size, hashes[index], path, root)
            for other in range(-1, size + 2):
                if other != index:
                    with pytest.raises((InvalidProof, Malformed)):
                        merkle.verify_inclusion(other, size, hashes[index], path, root)


def test_every_subtree_up_to_size_24_verifies():
    for size in range(1, 25):
        hashes = leaves(size)
        root = merkle.root_of(hashes)
        for start, end in subtrees(size):
            path = subtree_path(hashes, start, end)
            merkle.verify_subtree(start, end, size, merkle.root_of(hashes[start:end]), root, path)
            with pytest.raises(InvalidProof):
                merkle.verify_subtree(start, end, size, merkle.leaf_hash(b"other"), root, path)


def test_a_range_that_is_no_subtree_is_malformed():
    for start, end in [(1, 3), (2, 5), (3, 5), (4, 9)]:
        with pytest.raises(Malformed, match="do not form a subtree"):
            merkle.proof_ranges(start, end, 16)


@pytest.mark.parametrize(
    ("index", "size"), [(-1, 4), (4, 4), (0, 0), (5, 4), (0, merkle.MAX_SIZE + 1), (0, -1)]
)
def test_impossible_numbers_are_malformed(index, size):
    with pytest.raises(Malformed):
        merkle.verify_inclusion(index, size, merkle.leaf_hash(b""), [], merkle.leaf_hash(b""))


def test_nothing_is_proven_about_the_empty_tree():
    with pytest.raises(Malformed):
        merkle.verify_consistency(0, 4, merkle.EMPTY_ROOT, merkle.root_of(leaves(4)), [])
    with pytest.raises(Malformed):
        merkle.verify_consistency(0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])


def broken(path):
    """Yield each way to spoil a path."""
    for position in range(len(path)):
        for bit in range(0, 256, 7):
            changed = bytearray(path[position])
            changed[bit // 8] ^= 1 << bit % 8
            yield [*path[:position], bytes(changed), *path[position + 1 :]]
        yield [*path[:position], *path[position + 1 :]]
        yield [*path[:position], path[position], *path[position:]]
        if position and path[position] != path[position - 1]:
            yield [*path[: position - 1], path[position], path[position - 1], *path[position + 1 :]]
    yield [*path, merkle.EMPTY_ROOT]
    yield [merkle.EMPTY_ROOT, *path]


def test_each_change_to_an_inclusion_path_is_an_invalid_proof():
    hashes = leaves(13)
    root = merkle.root_of(hashes)
    for index in range(13):
        for path in broken(list(merkle.path_in(hashes, index))):
            with pytest.raises(InvalidProof):
                merkle.verify_inclusion(index, 13, hashes[index], path, root)


def test_each_change_to_a_consistency_path_is_an_invalid_proof():
    hashes = leaves(13)
    root = merkle.root_of(hashes)
    for old in range(1, 14):
        old_root = merkle.root_of(hashes[:old])
        for path in broken(consistency_path(hashes, old)):
            with pytest.raises(InvalidProof):
                merkle.verify_consistency(old, 13, old_root, root, path)


def test_a_rewritten_history_is_refused():
    hashes = leaves(20)
    rewritten = [*hashes[:3], merkle.leaf_hash(b"another"), *hashes[4:]]
    for old in range(4, 21):
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(
                old,
                20,
                merkle.root_of(hashes[:old]),
                merkle.root_of(rewritten),
                consistency_path(rewritten, old),
            )


def test_wrong_sizes_and_swapped_roots_are_refused():
    hashes = leaves(20)
    for old in range(1, 20):
        path = consistency_path(hashes, old)
        old_root, root = merkle.root_of(hashes[:old]), merkle.root_of(hashes)
        for wrong_old in range(21):
            if wrong_old != old:
                with pytest.raises((InvalidProof, Malformed)):
                    merkle.verify_consistency(wrong_old, 20, old_root, root, path)
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(old, 20, root, old_root, path)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_of_another_length_is_malformed(length):
    hashes = leaves(2)
    root = merkle.root_of(hashes)
    wrong = bytes(length)
    for leaf, path, top in [
        (wrong, hashes[1:], root),
        (hashes[0], [wrong], root),
        (hashes[0], hashes[1:], wrong),
    ]:
        with pytest.raises(Malformed):
            merkle.verify_inclusion(0, 2, leaf, path, top)


@given(st.integers(1, 2**63 - 1), st.data())
def test_the_number_of_hashes_fits_the_tree_for_any_size(size, data):
    index = data.draw(st.integers(0, size - 1))
    ranges = merkle.proof_ranges(index, index + 1, size)
    assert len(ranges) <= 63
    assert sum(high - low for low, high in ranges) == size - 1
    old = data.draw(st.integers(1, size))
    assert sum(high - low for low, high in merkle.proof_ranges(0, old, size)) >= size - old


def test_a_second_implementation_gives_the_same_roots_and_paths():
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    hashes = []
    for size in range(1, 66):
        entry = b"entry %d" % size
        tree.append_entry(entry)
        hashes.append(merkle.leaf_hash(entry))
        assert tree.get_root(size) == merkle.root_of(hashes)
        for index in {0, size // 3, size - 1}:
            proof = tree.prove_inclusion(index + 1, size)
            assert tuple(proof.path[1:]) == merkle.path_in(hashes, index)
