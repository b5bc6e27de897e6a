"""Certificates and revocation lists of odd kinds end in a named refusal."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from quotary.attestation.certificates import (
    Certificate,
    RevocationList,
    parse_certificate,
    parse_chain,
    verify_p256,
)
from quotary.errors import Malformed, Rejected
from tests.fakes import vendor
from tests.fakes.vendor import DAY, NOW, Recipe

ECDSA_SHA256, UNKNOWN = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d04030f")


def test_a_certificate_with_a_key_of_another_kind_is_malformed():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    key = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    certificate = (
        builder.serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY).sign(key, None)
    )
    with pytest.raises(Malformed):
        Certificate.parse(certificate)


def test_a_list_signed_in_an_unknown_way_is_rejected():
    chain = vendor.certificates(Recipe())
    data = vendor.revocation_list(Recipe(), "root", chain, ())
    odd = RevocationList.parse(data.replace(ECDSA_SHA256, UNKNOWN))
    with pytest.raises(Rejected) as refused:
        odd.verify("root crl", Certificate.parse(chain["root"]), NOW)
    assert refused.value.check == "root crl"


def test_a_list_without_an_end_is_malformed():
    chain = vendor.certificates(Recipe())
    der = vendor.revocation_list(Recipe(), "root", chain, ())
    parsed = x509.load_der_x509_crl(der)
    body = parsed.tbs_certlist_bytes
    # nextUpdate is the second of two UTCTimes of 15 bytes; take it out of the signed part and shorten every length.
    end = body.rindex(b"\x17\x0d")
    inner = body[3 if body[1] & 0x80 else 2 : end] + body[end + 15 :]
    rest = der[der.index(body) + len(body) :]
    assert RevocationList.parse(
        vendor.tlv(0x30, vendor.tlv(0x30, body[3:] if body[1] & 0x80 else body[2:]) + rest)
    )
    with pytest.raises(Malformed):
        RevocationList.parse(vendor.tlv(0x30, vendor.tlv(0x30, inner) + rest))


def test_a_list_says_nothing_of_another_issuers_certificates():
    chain = {name: Certificate.parse(found) for name, found in vendor.certificates(Recipe()).items()}
    listed = RevocationList.parse(vendor.revocation_list(Recipe(), "root", vendor.certificates(Recipe()), ()))
    listed.refuse("revocation", chain["ca"])
    with pytest.raises(Rejected):
        listed.refuse("revocation", chain["pck"])


def test_a_chain_has_exactly_its_length_and_ignores_final_zeros():
    pem = vendor.text(vendor.certificates(Recipe())["root"]).encode()
    assert len(parse_chain(pem + b"\0\0", 1)) == 1
    for bad, length in ((pem, 2), (pem * 2, 1), (b"", 1), (b"\0" + pem[30:], 1)):
        with pytest.raises(Malformed):
            parse_chain(bad, length)


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, b""])
def test_signatures_out_of_range_are_rejected(signature):
    with pytest.raises(Rejected) as refused:
        verify_p256("quote signature", vendor.key("pck").public_key(), signature, b"message")
    assert refused.value.check == "quote signature"


def test_names_and_bits_are_read_from_the_right_place():
    found = {name: Certificate.parse(value) for name, value in vendor.certificates(Recipe()).items()}
    assert (found["root"].is_ca, found["root"].path_length, found["root"].signs_lists) == (True, 1, True)
    assert (found["pck"].is_ca, found["pck"].common_name) == (False, "Our PCK Certificate")
    assert found["pck"].organisations == ("Our Vendor", "Our Vendor")
    der = vendor.certificates(Recipe())["pck"].public_bytes(serialization.Encoding.DER)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    assert len(found["pck"].fingerprint) == len(digest.finalize())


def even(make):
    """Make something until the last bit of its signature is zero: only then may that bit be called unused."""
    return next(found for found in iter(make, None) if not found.signature[-1] & 1)


def with_an_unused_bit(der, signature):
    return der[: -len(signature) - 1] + b"\1" + signature


def test_a_signature_has_one_spelling_of_its_last_bits():
    chain = vendor.certificates(Recipe())
    listed = even(
        lambda: x509.load_der_x509_crl(vendor.revocation_list(Recipe(), "root", chain, ("ca", "signing")))
    )
    found = even(lambda: vendor.certificates(Recipe())["pck"])
    der = serialization.Encoding.DER
    for parse, good in ((parse_certificate, found), (RevocationList.parse, listed)):
        assert parse(good.public_bytes(der))
        with pytest.raises(Malformed, match="whole byte"):
            parse(with_an_unused_bit(good.public_bytes(der), good.signature))
