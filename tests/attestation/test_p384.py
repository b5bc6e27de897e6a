"""The one signature of three vendors."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from quotary.attestation.p384 import verify_p384
from quotary.errors import Malformed, Rejected


def signed(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def test_a_signature_holds_over_its_own_bytes_only() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    signature = signed(key, b"message")
    verify_p384("it", key.public_key(), signature, b"message")
    for bad in (bytes(96), b"\xff" * 96, signature[48:] + signature[:48], signature[:48] + bytes(48)):
        with pytest.raises(Rejected, match="it: found a signature"):
            verify_p384("it", key.public_key(), bad, b"message")
    with pytest.raises(Rejected):
        verify_p384("it", key.public_key(), signature, b"messagf")


@pytest.mark.parametrize("length", [0, 64, 95, 97])
def test_another_length_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        verify_p384("it", ec.generate_private_key(ec.SECP384R1()).public_key(), bytes(length), b"")


def test_another_key_is_rejected() -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(Rejected, match="P-384"):
            verify_p384("it", key.public_key(), bytes(96), b"")
