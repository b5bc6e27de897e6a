"""RA-TLS certificates: two that other projects made, our own read by them and by ours, and broken ones."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation.ratls import (
    EVIDENCE,
    MAX_CERTIFICATE,
    AttestedCertificate,
    claims_of,
    make_certificate,
    report_data_of,
    verify_self_signed,
)
from quotary.attestation.sgx import SGXQuote
from quotary.errors import Malformed, Rejected
from tests.fakes.authority import NOW

VECTORS = Path(__file__).parents[1] / "vectors" / "ratls"
KEY = ec.generate_private_key(ec.SECP256R1())
SPKI_HASH = cbor2.loads(cbor2.loads(claims_of(KEY.public_key()))["pubkey-hash"])[1]


def foreign(name: str) -> bytes:
    return x509.load_pem_x509_certificate((VECTORS / name).read_bytes()).public_bytes(Encoding.DER)


def certificate(value: bytes | None) -> bytes:
    """A certificate with this evidence extension, or with none."""
    subject = x509.Name([])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 1, NOW, NOW + timedelta(hours=1))
    if value is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(EVIDENCE, value), critical=False)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("name", ["intel-sgx-sdk.pem", "rats-tls.pem"])
def test_a_certificate_of_another_project_names_its_key_and_its_quote_holds_the_claims(name: str) -> None:
    der = foreign(name)
    found = AttestedCertificate.parse(der)
    assert SGXQuote.parse(found.quote).body["report_data"] == found.report_data
    verify_self_signed(der)


def test_our_certificate_is_read_by_another_cbor_reader_and_by_ours() -> None:
    der = make_certificate(KEY, b"quote", "chat", NOW, NOW + timedelta(hours=1))
    found = AttestedCertificate.parse(der)
    assert (found.quote, found.claims) == (b"quote", claims_of(KEY.public_key()))
    assert found.report_data == report_data_of(found.claims)
    assert len(found.report_data) == 64
    value = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(EVIDENCE).value
    assert isinstance(value, x509.UnrecognizedExtension)
    tagged = cbor2.loads(value.value)
    assert (tagged.tag, list(tagged.value)) == (60_000, [b"quote", found.claims])
    assert list(cbor2.loads(cbor2.loads(found.claims)["pubkey-hash"])) == [
        1,
        hashlib.sha256(found.spki).digest(),
    ]
    verify_self_signed(der)


@pytest.mark.parametrize(("number", "hashed"), [(7, hashlib.sha384), (8, hashlib.sha512)])
def test_the_other_hashes_of_the_profile_are_read(number: int, hashed: Callable[[bytes], object]) -> None:
    spki = AttestedCertificate.parse(certificate(evidence(claims()))).spki
    digest = hashed(spki).digest()  # type: ignore[attr-defined]  # a hash of the standard library
    assert AttestedCertificate.parse(certificate(evidence(claims(number, digest)))).quote == b"quote"


def claims(number: object = 1, digest: object = SPKI_HASH) -> bytes:
    return cbor2.dumps({"pubkey-hash": cbor2.dumps([number, digest])})


def evidence(found: object, tag: int = 60_000, quote: object = b"quote") -> bytes:
    return cbor2.dumps(cbor2.CBORTag(tag, [quote, found]))


BROKEN: dict[str, tuple[bytes | None, type[Exception], str]] = {
    "no extension": (None, Malformed, "has no extension 2.23.133.5.4.9"),
    "another tag": (evidence(claims(), tag=60_001), Malformed, "wanted CBOR tag 60000"),
    "no tag": (cbor2.dumps([b"quote", claims()]), Malformed, "wanted CBOR tag 60000"),
    "three parts": (cbor2.dumps(cbor2.CBORTag(60_000, [b"q", claims(), b""])), Malformed, "array of quote and claims"),
    "a quote in text": (evidence(claims(), quote="quote"), Malformed, "not byte strings"),
    "bytes behind": (evidence(claims()) + b"\0", Malformed, "behind its end"),
    "no claims": (evidence(cbor2.dumps({})), Malformed, "no pubkey-hash"),
    "claims in a list": (evidence(cbor2.dumps([])), Malformed, "no pubkey-hash"),
    "a hash without algorithm": (
        evidence(cbor2.dumps({"pubkey-hash": cbor2.dumps([SPKI_HASH])})), Malformed, "no pubkey-hash",
    ),
    "another algorithm": (evidence(claims(2)), Malformed, "hash the key by 2"),
    "another key": (evidence(claims(digest=bytes(32))), Rejected, "the hash of the certificate's key"),
    "a short hash": (evidence(claims(digest=SPKI_HASH[:16])), Rejected, "the hash of the certificate's key"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_certificate_of_another_form_is_refused_by_name(name: str) -> None:
    value, kind, message = BROKEN[name]
    with pytest.raises(kind, match=message):
        AttestedCertificate.parse(certificate(value))


def test_every_cut_and_every_flipped_bit_of_the_claims_is_refused() -> None:
    good = claims()
    for at in range(len(good)):
        with pytest.raises((Malformed, Rejected)):
            AttestedCertificate.parse(certificate(evidence(good[:at])))
        for bit in (1, 0x80):
            with pytest.raises((Malformed, Rejected)):
                AttestedCertificate.parse(
                    certificate(evidence(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]))
                )


def test_what_is_no_certificate_or_too_long_is_malformed() -> None:
    for data, message in ((b"", "cannot be read"), (bytes(MAX_CERTIFICATE + 1), "at most")):
        with pytest.raises(Malformed, match=message):
            AttestedCertificate.parse(data)
    with pytest.raises(Malformed, match="cannot be read"):
        verify_self_signed(b"")


def test_a_certificate_that_another_key_signed_is_rejected() -> None:
    der = certificate(evidence(claims()))
    broken = der[:-1] + bytes([der[-1] ^ 1])
    with pytest.raises(Rejected, match="certificate signature"):
        verify_self_signed(broken)
