"""Verifier keys as text: every other spelling, and keys too weak or of another kind, are malformed."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary.errors import InvalidSignature, Malformed
from quotary.tlog.note import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    ECDSA,
    ED25519,
    VerifierKey,
)
from tests.tlog import keys
from tests.tlog.test_note import ECDSA_PRIVATE, VERIFIERS, spki

GOOD = VERIFIERS[0].vkey()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "++",
        "name",
        GOOD[:-1],
        GOOD + "=",
        GOOD.replace("+", "", 1),
        GOOD.replace(keys.ORIGIN, ""),
        GOOD.replace(keys.ORIGIN, "other.example"),
        GOOD.replace(keys.ORIGIN, "with space"),
        GOOD.replace(keys.ORIGIN, "with\ud800surrogate"),
        GOOD.replace(VERIFIERS[0].key_id.hex(), VERIFIERS[0].key_id.hex().upper()),
        GOOD.replace(VERIFIERS[0].key_id.hex(), "00000000"),
        GOOD.replace(VERIFIERS[0].key_id.hex(), VERIFIERS[0].key_id.hex() + "00"),
        "name+00000000+",
        "name+00000000+AQ==",
        "name+00000000+BQ==",
        "name+00000000+\u00e9",
    ],
)
def test_what_is_no_verifier_key_is_malformed(text):
    with pytest.raises(Malformed):
        VerifierKey.parse(text)


def test_weak_and_wrong_keys_are_malformed():
    points = [
        (0).to_bytes(32, "little"),
        (1).to_bytes(32, "little"),
        (2**255 - 20).to_bytes(32, "little"),
        b"\xff" * 32,
    ]
    other_curve = spki(ec.derive_private_key(5, ec.SECP256K1()).public_key())
    rsa_key = spki(rsa.generate_private_key(65537, 1024).public_key())
    compressed = ECDSA_PRIVATE.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    uncompressed_spki = spki(ECDSA_PRIVATE.public_key())
    compressed_spki = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + compressed
    assert VerifierKey.of("k", ECDSA, uncompressed_spki).key_id
    for alg, public in [
        *((alg, point) for alg in (ED25519, COSIGNATURE_ED25519) for point in points),
        (ED25519, bytes(31)),
        (COSIGNATURE_ML_DSA_44, bytes(1311)),
        (ECDSA, b"not der"),
        (ECDSA, other_curve),
        (ECDSA, rsa_key),
        (ECDSA, compressed_spki),
        (ECDSA, uncompressed_spki + b"\0"),
    ]:
        with pytest.raises(Malformed):
            VerifierKey.of("name", alg, public)


def test_an_ecdsa_key_verifies_its_own_signatures_only():
    text = "developers.google.com/android/binary_transparency/0\n"
    key = VerifierKey.of("k", ECDSA, spki(ECDSA_PRIVATE.public_key()))
    signature = ECDSA_PRIVATE.sign(text.encode(), ec.ECDSA(SHA256()))
    assert key.verify(text, signature) is None
    for wrong in (signature[:-1], signature + b"\0", b"", signature[:-1] + bytes([signature[-1] ^ 1])):
        with pytest.raises(InvalidSignature):
            key.verify(text, wrong)
    with pytest.raises(InvalidSignature):
        key.verify(text + "x\n", signature)
