"""What a witness is asked: requests that cannot be read, and growth that is none, are refused by name."""

import pytest

from quotary.canonical import b64
from quotary.errors import InvalidProof, Malformed, NotAuthorised
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import EMPTY_ROOT, leaf_hash, root_of
from quotary.tlog.tiles import consistency_path
from quotary.tlog.witness import MAX_PROOF, AddCheckpoint, Conflict, check_growth
from tests.fakes.log import signed_note

ORIGIN = "log.example.org/simulation"
LEAVES = [leaf_hash(b"%d" % number) for number in range(7)]
NOTE = signed_note(Checkpoint(ORIGIN, 7, root_of(LEAVES)), 1_795_262_400)


class Tiles:
    def tile(self, level: int, n: int, width: int) -> bytes:
        return b"".join(LEAVES[:width])


def checkpoint(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, root_of(LEAVES[:size]))


def test_a_request_is_read_with_its_proof_and_note() -> None:
    found = AddCheckpoint.parse(f"old 3\n{b64(LEAVES[0])}\n{b64(LEAVES[1])}\n\n".encode() + NOTE)
    assert (found.old_size, found.proof, found.note_bytes) == (3, (LEAVES[0], LEAVES[1]), NOTE)
    assert AddCheckpoint.parse(b"old 0\n\n" + NOTE).proof == ()


@pytest.mark.parametrize(
    "head",
    [
        b"", b"old", b"old ", b"old 01", b"old +1", b"old 1x", b"new 1", b"old " + b"9" * 20, b"old 1\nAA", b"old \xff",
        b"\n".join([b"old 1"] + [b64(bytes(32)).encode()] * (MAX_PROOF + 1)),
    ],
)  # fmt: skip
def test_any_other_first_lines_are_malformed(head: bytes) -> None:
    with pytest.raises(Malformed):
        AddCheckpoint.parse(head + b"\n\n" + NOTE)


def test_a_request_without_an_empty_line_is_malformed() -> None:
    with pytest.raises(Malformed):
        AddCheckpoint.parse(b"old 1")


def test_a_note_that_is_none_is_malformed_and_one_that_nobody_can_have_signed_is_not_authorised() -> None:
    with pytest.raises(Malformed):
        AddCheckpoint.parse(b"old 0\n\nno note at all")
    text = NOTE.split(b"\n\n")[0]
    with pytest.raises(NotAuthorised):
        AddCheckpoint.parse(b"old 0\n\n" + text + b"\n\n\xe2\x80\x94 somebody AAAA\n")


def test_growth_is_accepted_from_every_size_to_every_larger_one() -> None:
    for size in range(1, 8):
        check_growth(checkpoint(0), checkpoint(size), ())
        check_growth(checkpoint(size), checkpoint(size), ())
        for old in range(1, size):
            check_growth(checkpoint(old), checkpoint(size), consistency_path(old, size, Tiles()))
    check_growth(checkpoint(0), checkpoint(0), ())


@pytest.mark.parametrize(
    ("seen", "found", "proof"),
    [
        (checkpoint(0), Checkpoint(ORIGIN, 0, bytes(32)), ()),
        (checkpoint(0), checkpoint(5), (LEAVES[0],)),
        (checkpoint(5), checkpoint(5), (LEAVES[0],)),
        (checkpoint(5), Checkpoint(ORIGIN, 5, bytes(32)), ()),
        (checkpoint(3), checkpoint(7), ()),
        (checkpoint(3), checkpoint(7), (bytes(32),) * 4),
        (checkpoint(5), checkpoint(3), ()),
    ],
)
def test_anything_but_growth_is_an_invalid_proof(
    seen: Checkpoint, found: Checkpoint, proof: tuple[bytes, ...]
) -> None:
    with pytest.raises(InvalidProof):
        check_growth(seen, found, proof)


def test_the_empty_tree_has_one_root_and_a_conflict_names_its_size() -> None:
    assert checkpoint(0).root == EMPTY_ROOT
    assert Conflict(4).size == 4
