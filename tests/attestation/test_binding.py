"""The 64 bytes that the hardware signs, and the document that carries them."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import binding
from quotary.attestation.binding import Binding
from quotary.canonical import canonical, parse_canonical
from quotary.errors import Malformed, Rejected

EXAMPLE = Binding(b"\x01" * 32, "log.example.org/measurements", 42, b"\x02" * 32, None)
WITH_DEVICES = dataclasses.replace(EXAMPLE, devices=b"\x03" * 32)
digests = st.binary(min_size=32, max_size=32)


@given(
    digests,
    st.from_regex(r"[a-z0-9./-]{1,40}", fullmatch=True),
    st.integers(0, 2**53 - 1),
    digests,
    st.none() | digests,
)
def test_a_binding_reads_back_as_it_was_written(keyset, origin, size, root, devices):
    written = Binding(keyset, origin, size, root, devices)
    assert Binding.parse(written.encode()) == written


def test_report_data_is_the_pinned_formula():
    encoded = EXAMPLE.encode()
    assert encoded == canonical(parse_canonical(encoded, 2048))
    nonce_root = bytes(range(32))
    expected = hashlib.sha256(b"quotary-binding/v1\n" + encoded).digest() + nonce_root
    assert binding.report_data(encoded, nonce_root) == expected
    binding.verify_report_data(expected, encoded, nonce_root)


def test_any_flipped_bit_of_report_data_names_its_half():
    encoded = EXAMPLE.encode()
    good = binding.report_data(encoded, binding.UNCHALLENGED)
    for bit in range(512):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Rejected) as refused:
            binding.verify_report_data(bytes(bad), encoded, binding.UNCHALLENGED)
        assert refused.value.check == ("binding" if bit < 256 else "nonce")


def test_report_data_of_another_length_is_rejected():
    encoded = EXAMPLE.encode()
    good = binding.report_data(encoded, binding.UNCHALLENGED)
    for bad in (b"", good[:32], good[:-1], good + b"\0"):
        with pytest.raises(Rejected):
            binding.verify_report_data(bad, encoded, binding.UNCHALLENGED)


def test_a_nonce_root_of_another_length_is_malformed():
    for length in (0, 31, 33):
        with pytest.raises(Malformed):
            binding.report_data(EXAMPLE.encode(), bytes(length))


def test_the_keyset_digest_is_the_sha256_of_the_keyset():
    assert binding.keyset_digest(b"{}") == hashlib.sha256(b"{}").digest()
    assert binding.devices_digest(b"raw") == hashlib.sha256(b"raw").digest()


def test_gpu_nonces_differ_by_index_and_keyset():
    digest = b"\x07" * 32
    expected = hashlib.sha256(b"quotary-gpu-nonce/v1\n" + digest + b"\0\0\0\x02").digest()
    assert binding.gpu_nonce(digest, 2) == expected
    assert len({binding.gpu_nonce(digest, index) for index in range(8)}) == 8
    for bad in ((b"short", 0), (digest, -1), (digest, 2**32)):
        with pytest.raises(Malformed):
            binding.gpu_nonce(*bad)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"purpose": "quotary/binding/v2"},
        {"keyset": "none"},
        {"keyset": "sha512:" + "00" * 32},
        {"keyset": "sha256:" + "0" * 63},
        {"devices": "sha256:" + "AA" * 32},
        {"devices": "None"},
        {"extra": 1},
        {"log": {"origin": "a", "size": -1, "root": "00" * 32}},
        {"log": {"origin": "a", "size": 1, "root": "00" * 31}},
        {"log": {"origin": "", "size": 1, "root": "00" * 32}},
        {"log": {"origin": "a", "size": 1, "root": "00" * 32, "x": 1}},
    ],
)
def test_a_changed_binding_document_is_malformed(change):
    document = parse_canonical(WITH_DEVICES.encode(), 2048)
    with pytest.raises(Malformed):
        Binding.parse(canonical(document | change))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_raise_anything_else(data):
    with pytest.raises(Malformed):
        Binding.parse(data)


@pytest.mark.parametrize(
    "change",
    [
        {"keyset": b"short"},
        {"root": b"short"},
        {"size": -1},
        {"size": 2**53},
        {"devices": b"short"},
    ],
)
def test_a_binding_that_cannot_be_written_is_malformed(change):
    with pytest.raises(Malformed):
        dataclasses.replace(EXAMPLE, **change).encode()
