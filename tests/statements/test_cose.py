"""COSE receipts: read by a CBOR library that is not ours, and broken every way that we can name."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.attestation.cbor_encode import Tagged, encode
from quotary.errors import InvalidProof, InvalidSignature, Malformed, Rejected
from quotary.statements.cose import (
    CoseHead,
    CoseReceipt,
    verify_consistency_receipt,
    verify_inclusion_receipt,
)
from quotary.statements.envelope import spki
from quotary.tlog.merkle import leaf_hash, path_in, proof_ranges, root_of
from tests.client.test_format_pages import PAGES

ORIGIN = "log.example.org/simulation"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {hashlib.sha256(spki(PUBLIC)).digest(): PUBLIC}
LEAVES = [leaf_hash(b"%d" % number) for number in range(40)]


def signed(size: int) -> tuple[CoseHead, bytes]:
    head = CoseHead.of(ORIGIN, size, PUBLIC)
    return head, KEY.sign(head.signed_bytes(root_of(LEAVES[:size])))


def included(index: int, size: int) -> CoseReceipt:
    return CoseReceipt(*signed(size), path_in(LEAVES[:size], index), index=index)


def continued(old: int, size: int) -> CoseReceipt:
    path = tuple(root_of(LEAVES[low:high]) for low, high in proof_ranges(0, old, size))
    return CoseReceipt(*signed(size), path, old=old, root=root_of(LEAVES[:size]))


def older(size: int) -> tuple[int, bytes]:
    return size, root_of(LEAVES[:size])


def test_another_cbor_library_and_plain_ed25519_read_a_receipt_as_the_rfc_has_it() -> None:
    for made, kind in ((included(17, 20), -1), (continued(20, 33), -2)):
        read = cbor2.loads(made.encode())
        protected, unprotected, payload, signature = read.value
        assert read.tag == 18
        header = cbor2.loads(protected)
        assert (header[1], header[395], header[15]) == (-8, 1, {1: ORIGIN, 2: f"checkpoint/{made.head.size}"})
        first, second, path = cbor2.loads(unprotected[396][kind][0])
        wanted = (made.head.size, 17) if kind == -1 else (20, made.head.size)
        assert ((first, second), tuple(path)) == (wanted, made.path)
        root = root_of(LEAVES[: made.head.size])
        assert payload == (None if kind == -1 else root)
        structure = cbor2.dumps(["Signature1", protected, b"", root], canonical=True)
        Ed25519PublicKey.from_public_bytes(PUBLIC).verify(signature, structure)


@given(st.integers(1, 40), st.data())
@settings(max_examples=60)
def test_every_entry_of_every_size_is_proven(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    wire = included(index, size).encode()
    found = verify_inclusion_receipt(wire, LEAVES[index], KEYS, ORIGIN)
    assert (found.index, found.head.size, found.encode()) == (index, size, wire)
    old = data.draw(st.integers(1, size))
    wire = continued(old, size).encode()
    assert verify_consistency_receipt(wire, older(old), KEYS, ORIGIN).encode() == wire


def test_no_bit_and_no_byte_less_of_a_receipt_is_believed() -> None:
    wire = included(5, 9).encode()
    for place in range(len(wire) * 8):
        broken = bytearray(wire)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises((Malformed, InvalidProof, InvalidSignature, Rejected)):
            verify_inclusion_receipt(bytes(broken), LEAVES[5], KEYS, ORIGIN)
    for length in range(len(wire)):
        with pytest.raises(Malformed):
            CoseReceipt.parse(wire[:length])
    with pytest.raises(Malformed):
        CoseReceipt.parse(wire + b"\x00")


@given(st.binary(max_size=200))
def test_bytes_that_are_none_are_malformed(data: bytes) -> None:
    for each in (data, b"\xd2" + data, b"\xd2\x84" + data):
        with pytest.raises(Malformed):
            CoseReceipt.parse(each)


def test_another_entry_log_key_or_kind_is_refused() -> None:
    wire = included(5, 9).encode()
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(InvalidSignature):
        verify_inclusion_receipt(wire, LEAVES[6], KEYS, ORIGIN)
    with pytest.raises(Rejected, match="origin"):
        verify_inclusion_receipt(wire, LEAVES[5], KEYS, "log.example.net/other")
    with pytest.raises(InvalidSignature, match="no key of"):
        verify_inclusion_receipt(wire, LEAVES[5], {hashlib.sha256(spki(other)).digest(): other}, ORIGIN)
    with pytest.raises(Rejected, match="consistency"):
        verify_inclusion_receipt(continued(5, 9).encode(), LEAVES[5], KEYS, ORIGIN)
    with pytest.raises(Rejected, match="inclusion"):
        verify_consistency_receipt(wire, older(5), KEYS, ORIGIN)


def test_an_index_beyond_the_size_is_no_proof() -> None:
    with pytest.raises(Malformed):
        verify_inclusion_receipt(replace(included(5, 9), index=9).encode(), LEAVES[5], KEYS, ORIGIN)


def test_a_rewritten_older_log_is_not_continued() -> None:
    wire = continued(5, 9).encode()
    with pytest.raises(InvalidProof):
        verify_consistency_receipt(wire, (5, bytes(32)), KEYS, ORIGIN)
    with pytest.raises(Rejected, match="size 5"):
        verify_consistency_receipt(wire, older(6), KEYS, ORIGIN)


Parts = list[object]


def header(parts: Parts, **changes: object) -> None:
    found = cbor2.loads(parts[0])  # type: ignore[arg-type]  # bytes
    parts[0] = cbor2.dumps(found | {int(name[1:]): value for name, value in changes.items()}, canonical=True)


def proof(parts: Parts, kind: int, *values: object) -> None:
    parts[1] = {396: {kind: [cbor2.dumps(list(values), canonical=True)]}}


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: header(parts, _1=-7),
        lambda parts: header(parts, _395=2),
        lambda parts: header(parts, _2=[395]),
        lambda parts: header(parts, _15={1: ORIGIN, 2: "checkpoint/09"}),
        lambda parts: header(parts, _15={1: ORIGIN, 2: "checkpoint/10"}),
        lambda parts: header(parts, _15={1: ORIGIN}),
        lambda parts: header(parts, _15="x"),
        lambda parts: header(parts, _4="key"),
        lambda parts: parts.__setitem__(0, b"\xa0"),
        lambda parts: parts.__setitem__(0, cbor2.dumps([1])),
        lambda parts: parts.__setitem__(0, "text"),
        lambda parts: parts.__setitem__(1, {}),
        lambda parts: parts.__setitem__(1, []),
        lambda parts: parts.__setitem__(1, {396: {}}),
        lambda parts: parts.__setitem__(1, {396: {-1: []}}),
        lambda parts: parts.__setitem__(1, {396: {-1: [7]}}),
        lambda parts: parts.__setitem__(1, {396: parts[1][396], 1: 2}),
        lambda parts: proof(parts, -3, 9, 5, []),
        lambda parts: proof(parts, -1, 9, 5),
        lambda parts: proof(parts, -1, 9, -1, []),
        lambda parts: proof(parts, -1, 9, True, []),
        lambda parts: proof(parts, -1, 9, 5, [b"short"]),
        lambda parts: proof(parts, -1, 9, 5, 7),
        lambda parts: proof(parts, -1, 8, 5, []),
        lambda parts: proof(parts, -2, 5, 9, []),
        lambda parts: parts.__setitem__(2, b"short"),
        lambda parts: parts.__setitem__(2, bytes(32)),
        lambda parts: parts.__setitem__(3, bytes(63)),
        lambda parts: parts.__setitem__(3, None),
        lambda parts: parts.append(1),
    ],
)
def test_what_a_receipt_may_not_say_is_malformed(change: Callable[[Parts], None]) -> None:
    parts = list(cbor2.loads(included(5, 9).encode()).value)
    change(parts)
    with pytest.raises(Malformed):
        CoseReceipt.parse(encode(Tagged(18, parts)))  # type: ignore[arg-type]  # what cbor2 read


def test_the_page_shows_a_receipt_that_holds() -> None:
    text = (PAGES / "cose.md").read_text().split("```hex cose\n")[1].split("\n```")[0]
    found = verify_inclusion_receipt(bytes.fromhex("".join(text.split())), LEAVES[2], KEYS, ORIGIN)
    assert found == included(2, 5)
