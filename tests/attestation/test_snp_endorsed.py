"""SEV-SNP reports and certificates made with keys of our own: each rule of the endorsement, failing alone."""

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import amd, snp
from quotary.attestation.facts import Facts
from quotary.attestation.roots import VENDOR_ROOTS, Root, simulator_root
from quotary.attestation.snp import SNPReport
from quotary.errors import Malformed, Refused, Rejected, Unsupported
from tests.attestation.test_snp import NOW
from tests.fakes import amd as fake

# AMD gives every VCEK the serial number 0, which the library that parses them announces to refuse one day.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


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
