"""Who signed an enclave image: the signature section of an EIF (aws-nitro-enclaves-image-format,
``eif_signer``).

CBOR: a list of one ``{signing_certificate, signature}``, both as lists of byte values, not byte strings. The
certificate is PEM; the signature is an untagged COSE_Sign1 (RFC 9052, ES384) over ``{register_index: 0,
register_value: PCR0}``. The hypervisor refuses an image whose signature does not hold, and shows PCR8, a hash
of the certificate; whose it is and whether it is in force is for whoever pins PCR8 to say.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import cbor
from quotary.attestation.cbor_encode import encode
from quotary.attestation.certificates import parse_chain
from quotary.attestation.measure.eif import EIF, MAX_SIGNATURE
from quotary.attestation.measure.nitro import measure, signer_pcr
from quotary.attestation.measure.profiles import NitroProfile
from quotary.attestation.p384 import SIGNATURE_LENGTH, verify_p384
from quotary.errors import Malformed, Rejected

PROTECTED = bytes.fromhex("a1013822")  # {1: -35}, ES384
_MEMBERS = ("signing_certificate", "signature")


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed an image: the certificate in DER, and what an enclave shows of it (48 bytes)."""

    certificate: bytes
    pcr8: bytes


def to_be_signed(image: EIF, profile: NitroProfile) -> bytes:
    """Give the bytes that an image's signer signs with ECDSA on P-384 and SHA-384."""
    return encode(("Signature1", PROTECTED, b"", _payload(measure(image, profile).registers["pcr0"])))


def write_signature(image: EIF, profile: NitroProfile, certificate: bytes, signature: bytes) -> bytes:
    """Write the signature section, byte for byte as AWS's signer does; it is verified before.

    certificate: PEM; signature: 96 bytes r || s, big endian, over ``to_be_signed``
    """
    payload = _payload(measure(image, profile).registers["pcr0"])
    cose = encode((PROTECTED, {}, payload, signature))
    parts = (encode(_MEMBERS[0]), encode(list(certificate)), encode(_MEMBERS[1]), encode(list(cose)))
    section = b"\x81\xa2" + b"".join(parts)
    read_signature(section, payload)
    return section


def signer_of(image: EIF, profile: NitroProfile) -> Signer:
    """Return who signed an image; ``Malformed`` for no signature, ``Rejected`` for one that does not hold."""
    if image.signature is None:
        raise Malformed("the image is not signed; its PCR8 is zero")
    return read_signature(image.signature, _payload(measure(image, profile).registers["pcr0"]))


def read_signature(section: bytes, payload: bytes) -> Signer:
    """Check a signature section against the payload that PCR0 gives.

    1. It is one signature of the known form with one certificate.
    2. It says this PCR0 and no other.
    3. The certificate's key signed it.
    """
    certificate, cose = _section(section)
    (leaf,) = parse_chain(certificate, 1)
    protected, unprotected, said, signature = _cose(cose)
    if said != payload:
        raise Rejected("image signature", "one over another PCR0", payload.hex())
    if protected != PROTECTED or unprotected != {} or len(signature) != SIGNATURE_LENGTH:
        raise Malformed("image's signature is not ES384 alone")
    message = encode(("Signature1", PROTECTED, b"", payload))
    verify_p384("image signature", leaf.key, signature, message)
    der = leaf.parsed.public_bytes(Encoding.DER)
    return Signer(der, signer_pcr(der))


def _payload(pcr0: bytes) -> bytes:
    return encode({"register_index": 0, "register_value": list(pcr0)})


def _section(data: bytes) -> tuple[bytes, bytes]:
    found = cbor.decode(data, MAX_SIGNATURE)
    if not isinstance(found, tuple) or len(found) != 1 or not isinstance(found[0], dict):
        raise Malformed("image's signature section is not a list of one signature")
    if set(found[0]) != set(_MEMBERS):
        raise Malformed(f"image's signature has not exactly the members {', '.join(_MEMBERS)}")
    certificate, cose = (_octets(found[0][name]) for name in _MEMBERS)
    return certificate, cose


def _cose(data: bytes) -> tuple[bytes, object, bytes, bytes]:
    found = cbor.decode(data, MAX_SIGNATURE)
    if not isinstance(found, tuple) or len(found) != 4:
        raise Malformed("image's signature is no COSE_Sign1 of four items")
    protected, unprotected, payload, signature = found
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise Malformed("image's signature has an item that is not of bytes")
    return protected, unprotected, payload, signature


def _octets(value: object) -> bytes:
    if not isinstance(value, tuple) or not all(type(one) is int and 0 <= one < 256 for one in value):
        raise Malformed("image's signature has a member that is not a list of bytes")
    return bytes(value)
