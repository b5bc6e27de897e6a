"""ID blocks: the published bytes, and every way to break them."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from quotary.attestation.measure import idblock
from quotary.attestation.measure.idblock import IDBlock, host_data, id_auth, key_digest, verify
from quotary.errors import Malformed, Rejected

BLOCK = IDBlock(b"\1" * 48, b"\2" * 16, b"\3" * 16, 4, 0x30000)


def load(vectors: Path, name: str) -> bytes:
    return (vectors / "measure" / "snp" / name).read_bytes()


def public(vector: dict, name: str) -> ec.EllipticCurvePublicKey:
    key = load_pem_public_key(vector[f"{name}_public_key_pem"].encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def big_endian(blob: bytes) -> bytes:
    return blob[47::-1] + blob[72:120][::-1]


def signed(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@pytest.fixture
def pair():
    """A block and its authentication by two keys."""
    id_key, author = (ec.derive_private_key(number, ec.SECP384R1()) for number in (7, 8))
    vouched = signed(author, idblock.key_blob(id_key.public_key()))
    data = BLOCK.encode()
    return data, id_auth(id_key.public_key(), signed(id_key, data), (author.public_key(), vouched))


def test_block_and_key_digests_are_the_published_bytes(vectors):
    vector = json.loads(load(vectors, "id-block.json"))
    block = IDBlock(
        bytes.fromhex(vector["launch_digest"]),
        bytes.fromhex(vector["family_id"]),
        bytes.fromhex(vector["image_id"]),
        vector["guest_svn"],
        int(vector["policy"], 16),
    )
    assert block.encode() == base64.b64decode(vector["id_block_b64"])
    assert IDBlock.parse(block.encode()) == block
    for name, member in (("id", "id_key_digest_b64"), ("author", "author_key_digest_b64")):
        assert key_digest(public(vector, name)) == base64.b64decode(vector[member])


def test_authentication_is_the_published_bytes_and_verifies(vectors):
    vector = json.loads(load(vectors, "id-block.json"))
    expected = load(vectors, "test_auth_block.bin")
    id_key, author = public(vector, "id"), public(vector, "author")
    block_signature, key_signature = (
        big_endian(load(vectors, name)) for name in ("test_id_sig.bin", "test_auth_sig.bin")
    )
    assert id_auth(id_key, block_signature, (author, key_signature)) == expected
    found = verify(base64.b64decode(vector["id_block_b64"]), expected)
    assert found.id_key == base64.b64decode(vector["id_key_digest_b64"])
    assert found.author_key == base64.b64decode(vector["author_key_digest_b64"])
    assert found.block.measurement.hex() == vector["launch_digest"]


def test_host_data_of_a_real_report_are_those_of_its_document(vectors):
    vector = json.loads(load(vectors, "real-milan.json"))
    found = host_data("dstack-mr-config-v3:", vector["mr_config_document"].encode())
    assert found.hex() == vector["expected_host_data"]
    assert load(vectors, "real-milan-report.bin")[0xC0:0xE0] == found
    for domain in ("", "a\0", "ü"):
        with pytest.raises(Malformed):
            host_data(domain, b"")


def test_a_block_without_an_author_has_no_author_key(pair):
    id_key = ec.derive_private_key(7, ec.SECP384R1())
    auth = id_auth(id_key.public_key(), signed(id_key, pair[0]), None)
    assert verify(pair[0], auth).author_key == bytes(48)
    with pytest.raises(Malformed):
        verify(pair[0], auth[:4] + b"\2" + auth[5:])


def test_every_changed_byte_that_counts_is_noticed(pair):
    block, auth = pair
    assert verify(block, auth).block == BLOCK
    for at in range(len(block)):
        with pytest.raises((Malformed, Rejected)):
            verify(block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :], auth)
    for at in range(0, len(auth), 3):
        with pytest.raises((Malformed, Rejected)):
            verify(block, auth[:at] + bytes([auth[at] ^ 1]) + auth[at + 1 :])
    for length in (0, 95, 97):
        with pytest.raises(Malformed):
            verify(block[:length].ljust(length, b"\0"), auth)
    with pytest.raises(Malformed):
        verify(block, auth[:-1])


def test_a_block_signed_by_another_key_is_rejected(pair):
    block = pair[0]
    other = ec.derive_private_key(9, ec.SECP384R1())
    swapped = id_auth(other.public_key(), signed(ec.derive_private_key(7, ec.SECP384R1()), block), None)
    with pytest.raises(Rejected, match="id block signature"):
        verify(block, swapped)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": 0xB0000},  # debug
        {"policy": 0x70000},  # migration
        {"policy": 0x10000},  # bit 17 is not set
        {"policy": 1 << 64},
        {"svn": -1},
        {"measurement": bytes(47)},
        {"family": bytes(15)},
    ],
)
def test_blocks_that_no_guest_should_have_are_malformed(change):
    with pytest.raises(Malformed):
        replace(BLOCK, **change).encode()


def test_keys_and_signatures_of_other_kinds_are_malformed(pair):
    with pytest.raises(Malformed):
        key_digest(ec.derive_private_key(7, ec.SECP256R1()).public_key())
    key = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    with pytest.raises(Malformed):
        id_auth(key, bytes(95), None)
    long = pair[1][:64] + bytes(48) + b"\1" + pair[1][113:]
    with pytest.raises(Malformed, match="384 bits"):
        verify(pair[0], long)
    for at in (0, 576):
        with pytest.raises(Malformed):
            verify(pair[0], pair[1][:at] + b"\3" + pair[1][at + 1 :])


def test_the_layouts_have_no_gap():
    for layout in (idblock._BLOCK, idblock._KEY, idblock._SIGNATURE, idblock._AUTH):
        assert layout.gaps_and_overlaps() == ()
