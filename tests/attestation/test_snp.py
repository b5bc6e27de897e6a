"""SEV-SNP reports: every real vector at its time, every byte broken, every check failing alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import amd, snp
from quotary.attestation.facts import Facts
from quotary.attestation.roots import AMD_ARK_MILAN, VENDOR_ROOTS
from quotary.attestation.snp import SNPReport
from quotary.errors import Malformed, QuotaryError, Rejected, Unsupported

# AMD gives every VCEK the serial number 0, which the library that parses them announces to refuse one day.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


GENUINE = {
    "genoa-v3-azure-trustee-vcek": "genoa-19-11-01",
    "genoa-v3-microsoft-vcek": "genoa-19-11-01",
    "genoa-v3-veraison-vcek": "genoa-19-11-01",
    "genoa-v5-lunal-vcek": "genoa-19-a0-02",
    "milan-v2-automata-vcek": "milan",
    "milan-v2-azure-hcl-vcek": "milan",
    "milan-v2-gosevguest-debug": "milan",
    "milan-v2-trustee-vcek": "milan",
    "milan-v2-virtee-vcek": "milan",
    "milan-v3-aws-vlek-vmpl1": "milan-19-01-01",
    "milan-v3-dstack-vcek": "milan-19-01-01",
    "milan-v3-microsoft-vcek": "milan-19-01-01",
    "turin-v5-microsoft-vcek": "turin-1a-02-01",
}
DERIVED = {
    "measurement-bit": (Rejected, "report signature"),
    "policy-debug-forged": (Rejected, "report signature"),
    "reported-tcb-raised": (Rejected, "reported tcb"),
    "sig-tail-nonzero": (Malformed, "reserved bytes"),
    "signature-bit": (Rejected, "report signature"),
    "truncated": (Malformed, "1183 bytes"),
}
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def at(name: str) -> datetime:
    return datetime(2025, 6, 1, tzinfo=UTC) if "aws" in name else NOW


def chain_pem(vectors: Path, name: str) -> str:
    kind = "vlek" if "vlek" in name else "vcek"
    product = name.split("-")[0]
    leaf = x509.load_der_x509_certificate((vectors / "snp" / f"{name}.{kind}.der").read_bytes())
    issuer = "asvk" if kind == "vlek" else "ask"
    above = [(vectors / "roots" / f"amd-{which}-{product}.pem").read_text() for which in (issuer, "ark")]
    return leaf.public_bytes(Encoding.PEM).decode() + "".join(above)


def collateral(vectors: Path, name: str, crl: bytes | None = None) -> amd.Collateral:
    text = amd.NO_CRL if crl is None else crl.hex()
    return amd.Collateral.parse({"chain": chain_pem(vectors, name), "crl": text})


def report(vectors: Path, name: str) -> bytes:
    return (vectors / "snp" / f"{name}.report").read_bytes()


def facts_of(vectors: Path, name: str) -> Facts:
    return snp.verify(
        SNPReport.parse(report(vectors, name)), collateral(vectors, name), at(name), VENDOR_ROOTS
    )


@pytest.mark.parametrize("layout", snp.LAYOUTS.values(), ids=lambda layout: layout.what)
def test_a_report_layout_leaves_no_byte_unnamed(layout) -> None:
    assert layout.gaps_and_overlaps() == ()


@pytest.mark.parametrize("name", GENUINE)
def test_a_genuine_report_gives_facts(vectors: Path, name: str) -> None:
    facts = facts_of(vectors, name)
    assert (facts.platform, facts.product, facts.simulated) == ("snp", GENUINE[name], False)
    data = report(vectors, name)
    assert facts.registers == {"measurement": data[0x90:0xC0]}
    assert facts.report_data == data[0x50:0x90]
    assert facts.configuration["host_data"] == data[0xC0:0xE0]
    assert [check.name for check in facts.checks][-1] == "report signature"


@pytest.mark.parametrize("name", DERIVED)
def test_a_changed_report_is_refused_by_its_check(vectors: Path, name: str) -> None:
    kind, said = DERIVED[name]
    with pytest.raises(kind, match=said):
        snp.verify(
            SNPReport.parse(report(vectors, f"derived-genoa-v3-{name}")),
            collateral(vectors, "genoa-v3-microsoft-vcek"),
            NOW,
            VENDOR_ROOTS,
        )


def test_components_are_read_by_product(vectors: Path) -> None:
    turin = facts_of(vectors, "turin-v5-microsoft-vcek").tcb.components
    assert {name: turin[name] for name in amd.COMPONENTS} == {
        "bootloader": 1,
        "fmc": 1,
        "microcode": 81,
        "snp": 4,
        "tee": 1,
    }
    aws = facts_of(vectors, "milan-v3-aws-vlek-vmpl1").tcb.components
    microcode = [aws[f"{which} microcode"] for which in ("reported", "committed", "launch", "current")]
    assert microcode == [217, 219, 219, 220]
    assert aws["microcode"] == 217


def test_a_floors_plain_component_is_the_least_of_what_counts(vectors: Path) -> None:
    found = facts_of(vectors, "milan-v2-azure-hcl-vcek").tcb.components
    assert (found["current microcode"], found["launch microcode"], found["microcode"]) == (210, 115, 115)


def test_a_cloud_key_says_which_cloud_and_names_no_chip(vectors: Path) -> None:
    facts = facts_of(vectors, "milan-v3-aws-vlek-vmpl1")
    assert facts.chips == ()
    assert facts.attributes["csp_id"] == b"CN=cc-us-east-2.amazonaws.com"
    assert facts.attributes["signing_key"] == b"vlek"


def test_a_report_without_a_certificate_is_only_parsed(vectors: Path) -> None:
    found = SNPReport.parse(report(vectors, "milan-v4-gcp-nocert"))
    assert (found.version, found.product, found.signing_key) == (4, amd.MILAN, "vcek")


@pytest.mark.parametrize("name", ["bad-test-vcek-invalid-legacy", "bad-test-vcek-invalid-new"])
def test_a_certificate_that_amd_did_not_sign_is_refused(vectors: Path, name: str) -> None:
    leaf = x509.load_der_x509_certificate((vectors / "snp" / f"{name}.der").read_bytes())
    above = chain_pem(vectors, "milan-v2-trustee-vcek").split("-----END CERTIFICATE-----\n", 1)[1]
    given = amd.Collateral.parse(
        {"chain": leaf.public_bytes(Encoding.PEM).decode() + above, "crl": amd.NO_CRL}
    )
    with pytest.raises(Rejected, match="endorsement chain"):
        snp.verify(SNPReport.parse(report(vectors, "milan-v2-trustee-vcek")), given, NOW, VENDOR_ROOTS)


EXPECTED = {
    **dict.fromkeys(range(0x000, 0x004), "version"),
    **dict.fromkeys(range(0x034, 0x038), "signature"),
    **dict.fromkeys(range(0x180, 0x188), "reported tcb"),
    **dict.fromkeys(range(0x188, 0x18A), "product"),
    **dict.fromkeys(range(0x1A0, 0x1E0), "chip id"),
}


@pytest.mark.parametrize("name", ["turin-v5-microsoft-vcek", "milan-v2-trustee-vcek"])
def test_every_signed_byte_matters(vectors: Path, name: str) -> None:
    data, given = report(vectors, name), collateral(vectors, name)
    for at_byte in range(snp.SIGNED_LENGTH):
        changed = bytearray(data)
        changed[at_byte] ^= 0x80 if at_byte % 2 else 0x01
        with pytest.raises((Malformed, Unsupported, Rejected)) as caught:
            snp.verify(SNPReport.parse(bytes(changed)), given, NOW, VENDOR_ROOTS)
        if isinstance(caught.value, Rejected):
            wanted = EXPECTED.get(at_byte, "report signature")
            assert caught.value.check in (wanted, "signing key"), hex(at_byte)


def test_every_byte_behind_the_signed_ones_is_signature_or_zero(vectors: Path) -> None:
    data, given = report(vectors, "turin-v5-microsoft-vcek"), collateral(vectors, "turin-v5-microsoft-vcek")
    for at_byte in range(snp.SIGNED_LENGTH, snp.REPORT_LENGTH):
        changed = bytearray(data)
        changed[at_byte] ^= 0x10
        with pytest.raises((Malformed, Rejected), match=r"reserved bytes|report signature"):
            snp.verify(SNPReport.parse(bytes(changed)), given, NOW, VENDOR_ROOTS)


def test_every_length_but_the_right_one_is_malformed(vectors: Path) -> None:
    data = report(vectors, "genoa-v5-lunal-vcek")
    for length in (*range(0, snp.REPORT_LENGTH, 13), snp.REPORT_LENGTH - 1, snp.REPORT_LENGTH + 1):
        with pytest.raises(Malformed):
            SNPReport.parse((data + b"\0")[:length])


@given(st.binary(max_size=1200) | st.binary(min_size=1184, max_size=1184))
def test_bytes_from_anywhere_are_malformed_or_unsupported(data: bytes) -> None:
    with pytest.raises((Malformed, Unsupported)):
        SNPReport.parse(data)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_byte_of_every_certificate_matters(vectors: Path, position: int) -> None:
    name = "turin-v5-microsoft-vcek"
    found = SNPReport.parse(report(vectors, name))
    chain = x509.load_pem_x509_certificates(chain_pem(vectors, name).encode())
    der = chain[position].public_bytes(Encoding.DER)
    for at_byte in range(0, len(der), 11):
        changed = bytearray(der)
        changed[at_byte] ^= 1 << (at_byte % 8)
        try:
            bad = x509.load_der_x509_certificate(bytes(changed))
        except ValueError:
            continue
        pems = [
            c.public_bytes(Encoding.PEM).decode() for c in (*chain[:position], bad, *chain[position + 1 :])
        ]
        with pytest.raises(QuotaryError):
            snp.verify(
                found, amd.Collateral.parse({"chain": "".join(pems), "crl": "none"}), NOW, VENDOR_ROOTS
            )


@pytest.mark.parametrize("name", ["turin-v5-microsoft-vcek", "milan-v3-aws-vlek-vmpl1"])
def test_the_chain_must_be_in_force(vectors: Path, name: str) -> None:
    found, given = SNPReport.parse(report(vectors, name)), collateral(vectors, name)
    begin = max(c.not_before for c in given.chain)
    end = min(c.not_after for c in given.chain)
    for inside in (begin, end):
        snp.verify(found, given, inside, VENDOR_ROOTS)
    for outside in (begin - timedelta(seconds=1), end + timedelta(seconds=1)):
        with pytest.raises(Rejected, match="endorsement chain"):
            snp.verify(found, given, outside, VENDOR_ROOTS)


def test_a_root_that_was_not_named_is_refused(vectors: Path) -> None:
    name = "turin-v5-microsoft-vcek"
    with pytest.raises(Rejected, match=r"^root:"):
        snp.verify(SNPReport.parse(report(vectors, name)), collateral(vectors, name), NOW, (AMD_ARK_MILAN,))


def test_the_roots_own_list_is_verified_and_read(vectors: Path) -> None:
    for product, name, when in (
        ("genoa", "genoa-v3-veraison-vcek", datetime(2025, 6, 1, tzinfo=UTC)),
        ("milan", "milan-v2-automata-vcek", datetime(2025, 6, 1, tzinfo=UTC)),
    ):
        crl = (vectors / "collateral" / f"amd-{product}-vcek.crl").read_bytes()
        found, given = SNPReport.parse(report(vectors, name)), collateral(vectors, name, crl)
        facts = snp.verify(found, given, when, VENDOR_ROOTS)
        assert facts.attributes["revocation"] == b"checked"
        with pytest.raises(Rejected, match="revocation list"):
            snp.verify(found, given, NOW, VENDOR_ROOTS)
        for at_byte in range(40, len(crl), 17):
            changed = bytearray(crl)
            changed[at_byte] ^= 1
            with pytest.raises((Malformed, Rejected)):
                snp.verify(found, collateral(vectors, name, bytes(changed)), when, VENDOR_ROOTS)
