"""Envelopes: one spelling, strict keys and signatures; every broken byte is refused by name."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from quotary.canonical import b64, canonical
from quotary.errors import InvalidSignature, Malformed
from quotary.statements.envelope import (
    MAX_ENTRY,
    Envelope,
    Signature,
    _as_written,
    key_id,
    pae,
    parse_spki,
    raw_public_key,
    sign,
    spki,
    statement_id,
    verify,
)
from tests.fakes.authority import key, keyid

ENTRY = sign(b"payload", [key("a"), key("b")])
PIECES = [
    b"", b" ", b",", b'"', b"\\", b"\\u0041", b"\n", b"}", b"{", b"},{", b"]", b"=", b"A", b"AA==", b"A===", b"\x00", b"\xc3\xa9",
    b'"payload":"QQ==",', b'"x":1,', b"sha256:", b"null", b"1", *(b"{" + item + b"}" for item in ENTRY.split(b"{")[2:]),
]  # fmt: skip
edits = st.tuples(st.integers(0, len(ENTRY)), st.integers(0, 8), st.sampled_from(PIECES))


def test_an_entry_reads_back() -> None:
    envelope = Envelope.parse(ENTRY)
    assert envelope.encode() == ENTRY
    assert envelope.payload == b"payload"
    assert [item.keyid for item in envelope.signatures] == sorted([keyid("a"), keyid("b")])
    assert envelope.statement_id == statement_id(b"payload")


@given(st.binary(min_size=1, max_size=200), st.sets(st.sampled_from("abcd"), min_size=1))
def test_what_was_signed_verifies(payload: bytes, names: set[str]) -> None:
    public = {keyid(name): raw_public_key(key(name)) for name in names}
    envelope = Envelope.parse(sign(payload, [key(name) for name in names]))
    for signature in envelope.signatures:
        verify(public[signature.keyid], signature, payload)
        with pytest.raises(InvalidSignature):
            verify(public[signature.keyid], signature, payload + b"x")


def test_the_signed_bytes_are_those_of_dsse() -> None:
    assert pae(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


def test_key_ids_are_over_the_spki_that_the_library_writes() -> None:
    private = key("a")
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = raw_public_key(private)
    assert spki(raw) == der
    assert parse_spki(der) == raw
    assert key_id(raw) == keyid("a")


@pytest.mark.parametrize(
    "der",
    [b"", spki(bytes(31) + b"\x01")[:-1], spki(raw_public_key(key("a"))) + b"\x00", b"\x31" + spki(raw_public_key(key("a")))[1:]],
)  # fmt: skip
def test_other_spki_is_refused(der: bytes) -> None:
    with pytest.raises(Malformed, match="SPKI"):
        parse_spki(der)


@pytest.mark.parametrize("raw", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_degenerate_keys_are_refused(raw: bytes) -> None:
    with pytest.raises(Malformed, match="degenerate"):
        parse_spki(spki(raw))


def test_every_flipped_bit_of_a_signature_is_refused() -> None:
    signature = Envelope.parse(sign(b"payload", [key("a")])).signatures[0]
    public = raw_public_key(key("a"))
    for bit in range(512):
        raw = bytearray(signature.sig)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            verify(public, Signature(signature.keyid, bytes(raw)), b"payload")


def test_every_truncation_and_every_changed_byte_is_malformed_or_another_entry() -> None:
    for end in range(len(ENTRY)):
        with pytest.raises(Malformed):
            Envelope.parse(ENTRY[:end])
    for at in range(len(ENTRY)):
        changed = ENTRY[:at] + bytes([ENTRY[at] ^ 1]) + ENTRY[at + 1 :]
        try:
            assert Envelope.parse(changed).encode() == changed
        except Malformed:
            continue


def same_as_read(entry: bytes) -> None:
    """What the short way accepts, the general reader accepts as the same."""
    found = _as_written(entry)
    if found is not None:
        assert found == Envelope._read(entry)


@given(st.binary(min_size=1, max_size=60), st.sets(st.sampled_from("abcd"), min_size=1))
def test_what_was_written_is_read_the_short_way(payload: bytes, names: set[str]) -> None:
    entry = sign(payload, [key(name) for name in names])
    assert _as_written(entry) is not None
    same_as_read(entry)


@given(st.lists(edits, min_size=1, max_size=3))
def test_the_short_way_accepts_nothing_else_than_the_general_one(made: list[tuple[int, int, bytes]]) -> None:
    entry = ENTRY
    for at, length, piece in made:
        entry = entry[:at] + piece + entry[at + length :]
    same_as_read(entry)


def test_no_byte_can_be_another_one_on_the_short_way() -> None:
    for at in range(len(ENTRY)):
        for byte in b'\x00 "+,/0=AQgz[\\]{}\x80\xff':
            same_as_read(ENTRY[:at] + bytes([byte]) + ENTRY[at + 1 :])


@pytest.mark.parametrize("names", [["1"] * 2, ["2", "1"], [f"{number:02}" for number in range(33)]])
def test_signatures_are_as_many_and_in_order_also_on_the_short_way(names: list[str]) -> None:
    made = ",".join(f'{{"keyid":"sha256:{name:0>64}","sig":"{b64(bytes(64))}"}}' for name in names)
    entry = (
        f'{{"payload":"QQ==","payloadType":"application/vnd.in-toto+json","signatures":[{made}]}}'.encode()
    )
    assert _as_written(entry) is None
    with pytest.raises(Malformed):
        Envelope.parse(entry)


def _reverse(entry: dict[str, Any]) -> None:
    entry["signatures"].reverse()


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda entry: entry.update(extra=1), "unknown member"),
    (lambda entry: entry.pop("payload"), "payload is missing"),
    (lambda entry: entry.update(payload="AB=="), "canonical base64"),
    (lambda entry: entry.update(payloadType="text/plain"), "payloadType"),
    (lambda entry: entry.update(signatures=[]), "0 items"),
    (lambda entry: entry.update(signatures=entry["signatures"][:1] * 33), "33 items"),
    (lambda entry: entry.update(signatures=entry["signatures"][:1] * 2), "sorted by key id"),
    (_reverse, "sorted by key id"),
    (lambda entry: entry["signatures"][0].update(extra=1), "unknown member"),
    (lambda entry: entry["signatures"][0].update(keyid="a"), "sha256"),
    (lambda entry: entry["signatures"][0].update(sig=b64(bytes(63))), "63 bytes, 64 are needed"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_changed_envelope_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    document = json.loads(ENTRY)
    change(document)
    with pytest.raises(Malformed, match=message):
        Envelope.parse(canonical(document))


def test_an_entry_has_at_most_65535_bytes() -> None:
    room = MAX_ENTRY - len(sign(b"", [key("a")]))
    largest = sign(b"x" * (room // 4 * 3), [key("a")])
    assert MAX_ENTRY - 4 < len(largest) <= MAX_ENTRY
    with pytest.raises(Malformed, match="at most 65535"):
        sign(b"x" * (room // 4 * 3 + 3), [key("a")])
    for large in (b" " * (MAX_ENTRY + 1), largest.replace(b'"payload":"', b'"payload":"AAAA')):
        with pytest.raises(Malformed, match="at most 65535"):
            Envelope.parse(large)
