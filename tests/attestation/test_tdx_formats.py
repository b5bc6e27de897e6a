"""Quotes, collateral and certificate extensions of another shape are ``Malformed`` or ``Unsupported``."""

import json

import pytest

from quotary.attestation import tdx
from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Facts
from quotary.errors import Malformed, Unsupported
from tests.fakes import vendor
from tests.fakes.vendor import NOW, Recipe, make


def verify(recipe: Recipe) -> Facts:
    evidence = make(recipe)
    quote, collateral = tdx.TDXQuote.parse(evidence.quote), Collateral.parse(evidence.collateral)
    return tdx.verify(quote, collateral, NOW, evidence.roots())


def collateral_changes():
    yield lambda c: c.update(tcb_info_signature=c["tcb_info_signature"].upper())
    yield lambda c: c.update(tcb_info_signature=c["tcb_info_signature"][:-2])
    yield lambda c: c.update(root_ca_crl="00")
    yield lambda c: c.update(root_ca_crl="0")
    yield lambda c: c.update(pck_crl=c["pck_crl"][:-2])
    yield lambda c: c.update(pck_crl_issuer_chain="no chain")
    yield lambda c: c.update(pck_crl_issuer_chain=c["pck_crl_issuer_chain"] * 2)
    yield lambda c: c.pop("qe_identity")
    yield lambda c: c.update(more="")


@pytest.mark.parametrize("change", list(collateral_changes()))
def test_collateral_of_another_shape_is_malformed(change):
    members = make(Recipe()).collateral
    change(members)
    with pytest.raises(Malformed):
        Collateral.parse(members)


def test_a_list_with_something_critical_is_malformed():
    with pytest.raises(Malformed):
        Collateral.parse(make(Recipe(crl={"root": {"critical": True}})).collateral)


DOCUMENTS = [
    lambda d: d.update(id="SGX"),
    lambda d: d.update(version=2),
    lambda d: d.update(tcbType=1),
    lambda d: d.update(more=1),
    lambda d: d.update(fmspc="00"),
    lambda d: d.update(fmspc="zz" * 6),
    lambda d: d.update(fmspc="00 00 00 00 "),
    lambda d: d.update(tcbEvaluationDataNumber=1.5),
    lambda d: d.update(tcbLevels=[]),
    lambda d: d["tcbLevels"][0].update(tcbStatus="Fine"),
    lambda d: d["tcbLevels"][0].update(advisoryIDs=[1]),
    lambda d: d["tcbLevels"][0].update(more=1),
    lambda d: d["tcbLevels"][0]["tcb"].update(more=1),
    lambda d: d["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop(),
    lambda d: d["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][0].update(svn=256),
    lambda d: d["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][0].update(more=0),
    lambda d: d["tdxModule"].update(more=1),
    lambda d: d["tdxModuleIdentities"].append(d["tdxModuleIdentities"][0]),
    lambda d: d["tdxModuleIdentities"][0]["tcbLevels"][0]["tcb"].update(more=1),
    lambda d: d.update(issueDate="yesterday"),
]


@pytest.mark.parametrize("change", DOCUMENTS)
def test_a_signed_tcb_info_that_we_do_not_understand_is_malformed(change):
    with pytest.raises(Malformed):
        verify(Recipe(tcb_info=change))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(id="QE"),
        lambda d: d.update(version=1),
        lambda d: d.update(more=1),
        lambda d: d.update(mrsigner="00"),
    ],
)
def test_a_signed_qe_identity_that_we_do_not_understand_is_malformed(change):
    with pytest.raises(Malformed):
        verify(Recipe(qe_identity=change))


def test_a_signed_document_names_each_member_once():
    text = json.dumps(vendor.tcb_info())
    with pytest.raises(Malformed, match="names a member twice"):
        verify(Recipe(tcb_info_text='{"id":"TDX",' + text[1:]))


@pytest.mark.parametrize("text", ["{", '{"id":"TDX","id":"TDX"}', "NaN", "[" * 5000, "[]", '{"version":3.0}'])
def test_a_signed_document_that_is_no_document_is_malformed(text):
    with pytest.raises(Malformed):
        verify(Recipe(tcb_info_text=text))


EXTENSIONS = [
    {"extension": b""},
    {"extension": b"\5\0"},
    {"extension": b"\x30\x05abc"},
    {"extension": b"\x30\x80\0\0"},
    {"extension": b"\x30\x81\x01\0"},
    {"extension": b"\x30\x82\0\x80" + bytes(128)},
    {"extension": b"\x30\x83\0\0\1\0"},
    {"extension": b"\x3f\x01\0"},
    {"extension": b"\x30\x02\5\0"},
    {"extension": b"\x30\x00"},
    {"extension": vendor.sgx_extension({}) + b"\5\0"},
    {"extension": vendor.sgx_extension({}) * 2},
    {"extension": b"\x30"},
    {"extension": vendor.tlv(0x30, vendor.tlv(0x30, vendor.tlv(6, b"\1") + b"\5\0") * 2)},
    {"extension_parts": {1: None}},
    {"extension_parts": {1: vendor.octets(b"short")}},
    {"extension_parts": {1: vendor.integer(1)}},
    {"extension_parts": {2: vendor.octets(b"")}},
    {"extension_parts": {2: b"\x31" + vendor.sgx_tcb()[1:]}},
    {"extension_parts": {2: vendor.named_parts({1: vendor.integer(1)}, 2)}},
    {"extension_parts": {2: vendor.named_parts({n: vendor.integer(256) for n in range(1, 18)}, 2)}},
    {"extension_parts": {2: vendor.named_parts({n: vendor.octets(b"\1") for n in range(1, 18)}, 2)}},
    {"extension_parts": {2: vendor.named_parts(dict.fromkeys(range(1, 18), b"\2\0"), 2)}},
    {"extension_parts": {3: vendor.octets(b"x")}},
    {"extension_parts": {4: vendor.octets(b"x")}},
    {"extension_parts": {6: vendor.octets(b"x")}},
]


@pytest.mark.parametrize("change", EXTENSIONS)
def test_a_pck_certificate_with_another_sgx_extension_is_malformed(change):
    with pytest.raises(Malformed):
        verify(Recipe(**change))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"version": b"\3\0"}, "quote version 3"),
        ({"version": b"\6\0"}, "quote version 6"),
        ({"tee_type": bytes(4)}, "TEE 0x0"),
        ({"attestation_key_type": b"\3\0"}, "another kind than ECDSA"),
    ],
)
def test_quotes_of_other_kinds_are_unsupported(header, said):
    with pytest.raises(Unsupported, match=said):
        verify(Recipe(header=header))


def test_a_quote_of_another_vendors_enclave_is_malformed():
    with pytest.raises(Malformed):
        verify(Recipe(header={"qe_vendor_id": bytes(16)}))


@pytest.mark.parametrize(
    ("offset", "value", "error"),
    [(48, b"\4\0", Unsupported), (48, b"\1\0", Unsupported), (50, b"\0\1\0\0", Malformed)],
)
def test_version_five_bodies_of_other_types_or_lengths_are_not_read(offset, value, error):
    quote = bytearray(make(Recipe(version=5)).quote)
    quote[offset : offset + len(value)] = value
    with pytest.raises(error):
        tdx.TDXQuote.parse(bytes(quote))


def test_certification_data_is_a_chain_of_the_length_that_it_says():
    quote = make(Recipe()).quote
    at = quote.index(b"-----BEGIN")
    for place, said in ((at - 6, "of type 4, 5 is needed"), (at - 4, "PCK chain has")):
        changed = bytearray(quote)
        changed[place] ^= 1
        with pytest.raises(Malformed, match=said):
            tdx.TDXQuote.parse(bytes(changed))


def test_a_quote_with_reserved_header_bytes_is_malformed():
    quote = bytearray(make(Recipe()).quote)
    quote[8] = 1
    with pytest.raises(Malformed):
        tdx.TDXQuote.parse(bytes(quote))


def test_quotes_that_are_too_long_or_padded_with_anything_but_zeros_are_malformed():
    quote = make(Recipe()).quote
    assert tdx.TDXQuote.parse(quote + bytes(100)).signed == quote[:632]
    for bad in (quote + b"\1", quote + bytes(10) + b"\1", quote + bytes(tdx.MAX_QUOTE), quote[:635], b""):
        with pytest.raises(Malformed):
            tdx.TDXQuote.parse(bad)


def test_every_truncation_is_malformed():
    quote = make(Recipe()).quote
    for length in range(0, len(quote), 1 if len(quote) < 1000 else 7):
        with pytest.raises(Malformed):
            tdx.TDXQuote.parse(quote[:length])
