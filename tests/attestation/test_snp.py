"""SEV-SNP reports: every real vector at its time, every byte broken, every check failing alone."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import amd, snp
from quotary.attestation.facts import Facts
from quotary.attestation.roots import AMD_ARK_MILAN, VENDOR_ROOTS, Root, simulator_root
from quotary.attestation.snp import SNPReport
from quotary.errors import Malformed, QuotaryError, Refused, Rejected, Unsupported
from tests.fakes import amd as fake

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


# From here on with keys of our own.


@dataclass(frozen=True)
class Machine:
    """A product's authority and one chip, in AMD's formats."""

    product: amd.Product
    ark: fake.Signer
    ask: fake.Signer
    asvk: fake.Signer
    key: ec.EllipticCurvePrivateKey
    tcb: bytes
    hwid: bytes

    @property
    def roots(self) -> tuple[Root, ...]:
        der = self.ark.certificate.public_bytes(Encoding.DER)
        return (simulator_root("snp", hashlib.sha256(der).digest()),)

    def values(self, **changes: bytes) -> dict[str, bytes]:
        tcbs = {f"{which}_tcb": self.tcb for which in snp.TCBS}
        plain = tcbs | {"chip_id": self.hwid.ljust(64, b"\0")}
        family, model = {"milan": (0x19, 1), "genoa": (0x19, 0x11), "turin": (0x1A, 2)}[self.product.name]
        cpuid = {"cpuid_family": bytes([family]), "cpuid_model": bytes([model])}
        return plain | cpuid | changes

    def vcek(self, common: str = "SEV-VCEK", issuer: fake.Signer | None = None, **changes) -> fake.Signer:
        extensions = fake.endorsement(self.product, self.tcb, self.hwid) | changes.pop("extensions", {})
        return fake.certificate(common, self.key, issuer or self.ask, extensions, ca=False, **changes)

    def judge(
        self, leaf: fake.Signer, data: bytes, issuer: fake.Signer | None = None, crl: str = "none"
    ) -> Facts:
        pem = leaf.pem + (issuer or self.ask).pem + self.ark.pem
        given = amd.Collateral.parse({"chain": pem, "crl": crl})
        return snp.verify(SNPReport.parse(data), given, NOW, self.roots)


@pytest.fixture(scope="module")
def genoa() -> Machine:
    return machine(amd.GENOA)


@pytest.fixture(scope="module")
def turin() -> Machine:
    return machine(amd.TURIN)


def machine(product: amd.Product) -> Machine:
    ark = fake.certificate(f"ARK-{product.title}", fake.rsa_key(0))
    issue = partial(fake.certificate, issuer=ark, path_length=0)
    return Machine(
        product,
        ark,
        issue(f"SEV-{product.title}", fake.rsa_key(1)),
        issue(f"SEV-VLEK-{product.title}", fake.rsa_key(2)),
        ec.generate_private_key(ec.SECP384R1()),
        bytes([1, 1, 1, 4, 0, 0, 0, 81]) if product is amd.TURIN else bytes([10, 0, 0, 0, 0, 0, 23, 84]),
        bytes(range(1, 1 + product.chip_length)),
    )


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_simulators_report_is_simulated_by_its_root(genoa: Machine, version: int) -> None:
    facts = genoa.judge(genoa.vcek(), fake.report(version, genoa.key, genoa.values()))
    assert (facts.platform, facts.simulated, facts.chips) == ("sim-snp", True, (genoa.hwid.hex(),))


def test_production_roots_refuse_the_same_report(genoa: Machine) -> None:
    data = SNPReport.parse(fake.report(3, genoa.key, genoa.values()))
    pem = genoa.vcek().pem + genoa.ask.pem + genoa.ark.pem
    with pytest.raises(Rejected, match=r"^root:"):
        snp.verify(data, amd.Collateral.parse({"chain": pem, "crl": "none"}), NOW, VENDOR_ROOTS)


def test_a_simulators_mark_is_refused_in_production(genoa: Machine) -> None:
    leaf = genoa.vcek(extensions={"1.3.6.1.4.1.99999.7411.1": b"\5\0"})
    data = SNPReport.parse(fake.report(3, genoa.key, genoa.values()))
    pem = leaf.pem + genoa.ask.pem + genoa.ark.pem
    with pytest.raises(Refused, match="simulated evidence"):
        snp.verify(data, amd.Collateral.parse({"chain": pem, "crl": "none"}), NOW, VENDOR_ROOTS)


def test_a_vlek_needs_the_issuer_of_vleks_and_no_chip(genoa: Machine) -> None:
    extensions = fake.endorsement(genoa.product, genoa.tcb, csp_id="CN=cc.example.org")
    values = genoa.values(chip_id=bytes(64), flags=b"\4\0\0\0")
    data = fake.report(3, genoa.key, values)
    leaf = fake.certificate("SEV-VLEK", genoa.key, genoa.asvk, extensions, ca=False)
    assert genoa.judge(leaf, data, genoa.asvk).chips == ()
    by_ask = fake.certificate("SEV-VLEK", genoa.key, genoa.ask, extensions, ca=False)
    with pytest.raises(Rejected, match="endorsement kind"):
        genoa.judge(by_ask, data)
    with pytest.raises(Rejected, match="chip id"):
        genoa.judge(
            leaf, fake.report(3, genoa.key, values | {"chip_id": genoa.values()["chip_id"]}), genoa.asvk
        )
    with pytest.raises(Rejected, match="signing key"):
        genoa.judge(leaf, fake.report(3, genoa.key, values | {"flags": bytes(4)}), genoa.asvk)


def test_a_vcek_by_the_issuer_of_vleks_is_refused(genoa: Machine) -> None:
    data = fake.report(3, genoa.key, genoa.values())
    with pytest.raises(Rejected, match="endorsement kind"):
        genoa.judge(genoa.vcek(issuer=genoa.asvk), data, genoa.asvk)
    with pytest.raises(Rejected, match="endorsement kind"):
        genoa.judge(genoa.vcek("SEV-VLEK"), data)


def test_a_leaf_that_its_issuer_did_not_sign_is_refused(genoa: Machine) -> None:
    data = fake.report(3, genoa.key, genoa.values())
    namesake = fake.certificate("SEV-Genoa", fake.rsa_key(2), issuer=genoa.ark, path_length=0)
    with pytest.raises(Rejected, match=r"^endorsement chain"):
        genoa.judge(genoa.vcek(issuer=namesake), data)


def test_a_ca_does_not_endorse(genoa: Machine) -> None:
    extensions = fake.endorsement(genoa.product, genoa.tcb, genoa.hwid)
    leaf = fake.certificate("SEV-VCEK", genoa.key, genoa.ask, extensions)
    with pytest.raises(Rejected, match="endorsement kind"):
        genoa.judge(leaf, fake.report(3, genoa.key, genoa.values()))


def test_an_unsigned_report_is_refused(genoa: Machine) -> None:
    data = fake.report(3, genoa.key, genoa.values(flags=(7 << 2).to_bytes(4, "little")))
    with pytest.raises(Rejected, match="signing key: found no key"):
        genoa.judge(genoa.vcek(), data)


def test_a_report_has_one_length_and_one_kind_of_signature(genoa: Machine) -> None:
    data = fake.report(3, genoa.key, genoa.values())
    for odd in (b"", data[:-1], data + b"\0"):
        with pytest.raises(Malformed, match="1184 are needed"):
            SNPReport.parse(odd)
    with pytest.raises(Unsupported, match="another kind than ECDSA"):
        SNPReport.parse(fake.report(3, genoa.key, genoa.values(signature_algorithm=b"\2\0\0\0")))


@pytest.mark.parametrize("flags", [2 << 2, 6 << 2, 1 << 5, 1 << 31])
def test_unknown_flags_are_malformed(genoa: Machine, flags: int) -> None:
    with pytest.raises(Malformed, match="flags"):
        SNPReport.parse(fake.report(3, genoa.key, genoa.values(flags=flags.to_bytes(4, "little"))))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"reported_tcb": bytes([9, 0, 0, 0, 0, 0, 23, 84])}, "reported tcb"),
        ({"chip_id": bytes(64)}, "chip id"),
        ({"chip_id": b"\1" * 64}, "chip id"),
        ({"cpuid_model": b"\1"}, "product"),
    ],
)
def test_a_report_that_its_certificate_does_not_fit_is_refused(genoa: Machine, changes, check: str) -> None:
    with pytest.raises(Rejected, match=f"^{check}"):
        genoa.judge(genoa.vcek(), fake.report(3, genoa.key, genoa.values(**changes)))


def test_a_report_of_another_key_is_refused(genoa: Machine) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(Rejected, match="report signature"):
        genoa.judge(genoa.vcek(), fake.report(3, other, genoa.values()))


def test_a_key_on_another_curve_is_refused(genoa: Machine) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    extensions = fake.endorsement(genoa.product, genoa.tcb, genoa.hwid)
    leaf = fake.certificate("SEV-VCEK", key, genoa.ask, extensions, ca=False)
    with pytest.raises(Rejected, match="P-384 key"):
        genoa.judge(leaf, fake.report(3, genoa.key, genoa.values()))


def test_a_revoked_issuer_is_refused(genoa: Machine) -> None:
    data, leaf = fake.report(3, genoa.key, genoa.values()), genoa.vcek()
    serial = genoa.ask.certificate.serial_number
    assert genoa.judge(leaf, data, crl=fake.revocation_list(genoa.ark, [serial + 1000]).hex())
    with pytest.raises(Rejected, match=r"^revocation:"):
        genoa.judge(leaf, data, crl=fake.revocation_list(genoa.ark, [serial]).hex())
    with pytest.raises(Rejected, match=r"^revocation list:"):
        genoa.judge(leaf, data, crl=fake.revocation_list(genoa.ask, []).hex())
    stale = fake.revocation_list(genoa.ark, [], end=NOW - timedelta(seconds=1))
    with pytest.raises(Rejected, match=r"^revocation list:"):
        genoa.judge(leaf, data, crl=stale.hex())


def test_a_version_2_report_takes_its_product_from_the_certificate(genoa: Machine, turin: Machine) -> None:
    def old(machine: Machine) -> bytes:
        values = machine.values()
        return fake.report(2, machine.key, {n: v for n, v in values.items() if not n.startswith("cpuid")})

    assert genoa.judge(genoa.vcek(), old(genoa)).product == "genoa"
    with pytest.raises(Rejected, match=r"^product"):
        turin.judge(turin.vcek(), old(turin))


def test_a_vendors_root_speaks_for_its_own_product(genoa: Machine) -> None:
    der = genoa.ark.certificate.public_bytes(Encoding.DER)
    wrong = Root("snp", hashlib.sha256(der).digest(), "another product's root")
    pem = genoa.vcek().pem + genoa.ask.pem + genoa.ark.pem
    given = amd.Collateral.parse({"chain": pem, "crl": "none"})
    with pytest.raises(Rejected, match="product root"):
        snp.verify(SNPReport.parse(fake.report(3, genoa.key, genoa.values())), given, NOW, (wrong,))


OID = "1.3.6.1.4.1.3704.1"


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ({f"{OID}.2": b"\x16\x04Rome"}, "no product"),
        ({f"{OID}.2": b"\x0c\x05Genoa"}, "ASCII"),
        ({f"{OID}.2": b"\x16\x00"}, "ASCII"),
        ({f"{OID}.2": b"\x16\x01\xff"}, "ASCII"),
        ({f"{OID}.1": b"\2\1\1"}, "structure"),
        ({f"{OID}.2": b"\x16\x82\x01\x01" + b"x" * 257}, "not a short ASCII string"),
        ({f"{OID}.3.1": b""}, "no extension"),
        ({f"{OID}.3.1": b"\2\1\1\2\1\1"}, "no extension"),
        ({f"{OID}.3.1": b"\2\2\1\0"}, "integer"),
        ({f"{OID}.4": b"\1" * 63}, "hardware id"),
        ({f"{OID}.5": b"\x16\x01x"}, "hardware id"),
    ],
)
def test_a_certificate_with_odd_extensions_is_not_read(genoa: Machine, extensions, said: str) -> None:
    with pytest.raises((Malformed, Unsupported), match=said):
        genoa.judge(genoa.vcek(extensions=extensions), fake.report(3, genoa.key, genoa.values()))


def test_a_reserved_byte_of_a_tcb_version_is_malformed(genoa: Machine) -> None:
    data = fake.report(3, genoa.key, genoa.values(launch_tcb=bytes([10, 0, 1, 0, 0, 0, 23, 84])))
    with pytest.raises(Malformed, match="reserved byte"):
        genoa.judge(genoa.vcek(), data)


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x00, amd.MILAN),
        (0x19, 0x0F, amd.MILAN),
        (0x19, 0x10, amd.GENOA),
        (0x19, 0xAF, amd.GENOA),
        (0x1A, 0x11, amd.TURIN),
    ],
)
def test_products_are_known_by_cpuid(family: int, model: int, product: amd.Product) -> None:
    assert amd.product_of_cpuid(family, model) is product


@pytest.mark.parametrize(
    ("family", "model"), [(0x17, 0x31), (0x19, 0x20), (0x19, 0x9F), (0x19, 0xB0), (0x1A, 0x12)]
)
def test_an_unknown_cpuid_has_no_product(family: int, model: int) -> None:
    with pytest.raises(Unsupported):
        amd.product_of_cpuid(family, model)


@pytest.mark.parametrize("members", [{}, {"chain": ""}, {"chain": "", "crl": "none", "more": ""}])
def test_collateral_has_exactly_its_members(members: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        amd.Collateral.parse(members)


@pytest.mark.parametrize(("chain", "crl"), [("", "none"), ("x", "none"), ("", ""), ("", "00"), ("", "NONE")])
def test_collateral_that_cannot_be_read_is_malformed(chain: str, crl: str) -> None:
    with pytest.raises(Malformed):
        amd.Collateral.parse({"chain": chain, "crl": crl})


@pytest.mark.parametrize("version", snp.HELD_TO_FLOOR)
def test_one_old_version_of_three_is_what_a_floor_sees(genoa: Machine, version: str) -> None:
    old = bytes([10, 0, 0, 0, 0, 0, 23, 83])
    tcb = old if version == "reported" else genoa.tcb
    machine = replace(genoa, tcb=tcb)
    values = {f"{which}_tcb": genoa.tcb for which in snp.TCBS} | {f"{version}_tcb": old}
    facts = machine.judge(machine.vcek(), fake.report(3, machine.key, machine.values(**values)))
    assert facts.tcb.components["microcode"] == 83
    assert facts.tcb.components["current microcode"] == 84
