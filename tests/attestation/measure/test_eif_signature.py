"""Signed enclave images: what the vendor's signer writes, and each thing that can be wrong with a signature."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from quotary.attestation.measure import nitro
from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.eif_signature import signer_of, to_be_signed, write_signature
from quotary.attestation.measure.profiles import nitro_profile
from quotary.errors import Malformed, Rejected
from tests.fakes.aws import encode

PROFILE = nitro_profile("nitro/eif-v4/v1")
IMAGE = EIF(b"kernel" * 9, "console=ttyS0", (b"boot" * 7, b"root" * 5))
PROTECTED = bytes.fromhex("a1013822")


def certified(curve: ec.EllipticCurve) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(curve)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "image signer")])
    now = datetime(2026, 7, 1, tzinfo=UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return key, made.sign(key, SHA384())


KEY, CERTIFICATE = certified(ec.SECP384R1())
PEM = CERTIFICATE.public_bytes(Encoding.PEM)


def signature(message: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    halves = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    return b"".join(half.to_bytes(48, "big") for half in halves)


def payload(image: EIF = IMAGE) -> bytes:
    pcr0 = nitro.measure(image, PROFILE).registers["pcr0"]
    return encode({"register_index": 0, "register_value": list(pcr0)})


def section(**change: object) -> bytes:
    """A signature as AWS's signer writes it, by another CBOR writer, with one thing changed."""
    said = change.get("payload", payload())
    message = encode(["Signature1", PROTECTED, b"", said])
    made = change.get("signature", signature(message))
    cose = change.get("cose", [change.get("protected", PROTECTED), change.get("unprotected", {}), said, made])
    octets = change.get("octets", list(encode(cose)))
    members = {"signing_certificate": list(change.get("pem", PEM)), "signature": octets}  # type: ignore[call-overload]
    return encode(change.get("list", [members | change.get("more", {})]))  # type: ignore[operator]


def test_a_signed_image_says_who_signed_it_and_what_pcr8_will_be() -> None:
    found = signer_of(replace(IMAGE, signature=section()), PROFILE)
    der = CERTIFICATE.public_bytes(Encoding.DER)
    assert found.certificate == der
    assert found.pcr8 == hashlib.sha384(bytes(48) + hashlib.sha384(der).digest()).digest()


def test_what_is_written_is_what_the_vendors_signer_writes() -> None:
    made = signature(to_be_signed(IMAGE, PROFILE))
    written = write_signature(IMAGE, PROFILE, PEM, made)
    assert written == section(signature=made)
    signed = replace(IMAGE, signature=written)
    assert EIF.parse(signed.encode()) == signed
    assert nitro.measure(signed, PROFILE) == nitro.measure(IMAGE, PROFILE)
    with pytest.raises(Rejected, match="image signature"):
        write_signature(IMAGE, PROFILE, PEM, signature(b"something else"))


OTHER_KEY, OTHER = certified(ec.SECP384R1())
SHORT_KEY, SHORT = certified(ec.SECP256R1())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"payload": payload(replace(IMAGE, kernel=b"other"))}, Rejected),
        ({"payload": encode({"register_index": 1, "register_value": [0] * 48})}, Rejected),
        ({"signature": bytes(96)}, Rejected),
        ({"signature": signature(b"other")}, Rejected),
        ({"pem": OTHER.public_bytes(Encoding.PEM)}, Rejected),
        ({"pem": SHORT.public_bytes(Encoding.PEM)}, Rejected),
        ({"signature": bytes(95)}, Malformed),
        ({"protected": bytes.fromhex("a1013823")}, Malformed),
        ({"unprotected": {1: 1}}, Malformed),
        ({"cose": [PROTECTED, {}, payload()]}, Malformed),
        ({"cose": [PROTECTED, {}, payload(), 7]}, Malformed),
        ({"cose": 7}, Malformed),
        ({"octets": b"bytes"}, Malformed),
        ({"octets": [256]}, Malformed),
        ({"octets": [True]}, Malformed),
        ({"pem": b"no certificate"}, Malformed),
        ({"pem": PEM + PEM}, Malformed),
        ({"more": {"another": 1}}, Malformed),
        ({"list": []}, Malformed),
        ({"list": [1]}, Malformed),
        ({"list": {}}, Malformed),
    ],
)
def test_a_signature_with_one_thing_wrong_is_refused(
    change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        signer_of(replace(IMAGE, signature=section(**change)), PROFILE)


def test_an_image_without_a_signature_has_no_signer() -> None:
    with pytest.raises(Malformed, match="not signed"):
        signer_of(IMAGE, PROFILE)


def test_every_flipped_bit_of_a_signature_is_noticed_and_one_of_the_certificate_is_another_pcr8() -> None:
    good, der = section(), CERTIFICATE.public_bytes(Encoding.DER)
    pcr8, start = nitro.signer_pcr(der), good.index(encode("signature")[:10])
    for at in range(len(good)):
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        try:
            found = signer_of(replace(IMAGE, signature=bad), PROFILE)
        except (Malformed, Rejected):
            continue
        # Nobody signs the certificate; where PEM has white space nothing of it changes.
        assert at < start
        assert (found.certificate == der) == (found.pcr8 == pcr8), at
