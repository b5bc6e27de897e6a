"""Simulated AMD, AWS and NVIDIA: the verifiers believe them under their own root, and production never does."""

import base64
import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from quotary.attestation import amd, devices, nitro, rim, snp, snp_appraisal
from quotary.attestation.roots import SIMULATOR_OID, VENDOR_ROOTS, simulator_root
from quotary.errors import CannotTell, Malformed, NotAuthorised, Refused, Rejected
from simulator.nitro import Chosen, NitroVendor, make_document, open_nitro_vendor
from simulator.nvidia import (
    NVIDIAMachine,
    NVIDIAVendor,
    make_rims,
    open_nvidia_vendor,
    show_devices,
)
from simulator.pki import ORGANISATION
from simulator.snp import SNPTCB, SNPPlatform, SNPVendor, open_snp_vendor

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
TCG = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
MEASURED, HOST, DATA = b"\1" * 48, b"\2" * 32, b"\3" * 64


@dataclass(frozen=True)
class Requirements:
    configuration: tuple[bytes, ...]
    guest_policy: "Mask | None"


@dataclass(frozen=True)
class Mask:
    mask: bytes
    value: bytes


@dataclass(frozen=True)
class Floor:
    minimum: dict[str, int | bytes]
    evaluation_number: int = 0
    accepted_status: tuple[str, ...] = ("none",)
    grace_seconds: int = 0
    denied_advisories: tuple[str, ...] = ()
    denied_families: tuple[str, ...] = ()
    denied_chips: tuple[str, ...] = ()


SMT = Mask(b"\0\0\1\0\0\0\0\0", b"\0\0\1\0\0\0\0\0")


@pytest.fixture(scope="session")
def snp_vendor(tmp_path_factory: pytest.TempPathFactory) -> SNPVendor:
    return open_snp_vendor(tmp_path_factory.mktemp("snp") / "vendor", NOW)


@pytest.fixture(scope="module")
def nitro_vendor(tmp_path_factory: pytest.TempPathFactory) -> NitroVendor:
    return open_nitro_vendor(tmp_path_factory.mktemp("nitro") / "vendor", NOW)


@pytest.fixture(scope="module")
def nvidia_vendor(tmp_path_factory: pytest.TempPathFactory) -> NVIDIAVendor:
    return open_nvidia_vendor(tmp_path_factory.mktemp("nvidia") / "vendor", NOW)


def snp_facts(vendor: SNPVendor, tcb: SNPTCB):
    platform = SNPPlatform(vendor, tcb, NOW)
    report = snp.SNPReport.parse(platform.report(MEASURED, HOST, DATA))
    roots = (simulator_root("snp", vendor.root_sha256),)
    return snp.verify(report, amd.Collateral.parse(platform.collateral), NOW, roots)


def test_a_simulated_snp_guest_is_admitted_under_the_simulators_root(snp_vendor: SNPVendor) -> None:
    facts = snp_facts(snp_vendor, SNPTCB())
    assert (facts.platform, facts.product, facts.simulated) == ("sim-snp", "genoa-19-11-01", True)
    assert facts.registers == {"measurement": MEASURED}
    assert facts.report_data == DATA
    floor = Floor({"bootloader": 10, "fmc": 0, "microcode": 84, "snp": 27, "tee": 0})
    row = Requirements((HOST,), SMT)
    assert snp_appraisal.appraise(facts, floor, row, snp_appraisal.STRICT)
    old = snp_facts(snp_vendor, SNPTCB(microcode=83))
    with pytest.raises(Refused, match="tcb minimum"):
        snp_appraisal.appraise(old, floor, row, snp_appraisal.STRICT)


def test_a_chips_certificate_says_what_amds_say_and_that_it_is_simulated(snp_vendor: SNPVendor) -> None:
    chain = SNPPlatform(snp_vendor, SNPTCB(), NOW).collateral["chain"]
    vcek = x509.load_pem_x509_certificates(chain.encode())[0]
    # AMD 57230, table of the VCEK's extensions: its own and none of X.509's.
    amds = {f"1.3.6.1.4.1.3704.1.{end}" for end in ("1", "2", "4", *(f"3.{at}" for at in range(1, 9)))}
    assert {found.oid.dotted_string for found in vcek.extensions} == {*amds, SIMULATOR_OID}


def test_production_refuses_a_simulated_snp_guest_on_sight(snp_vendor: SNPVendor) -> None:
    platform = SNPPlatform(snp_vendor, SNPTCB(), NOW)
    report = snp.SNPReport.parse(platform.report(MEASURED, HOST, DATA))
    with pytest.raises(Refused, match="simulated evidence"):
        snp.verify(report, amd.Collateral.parse(platform.collateral), NOW, VENDOR_ROOTS)


def test_a_simulated_enclave_is_admitted_under_the_simulators_root(nitro_vendor: NitroVendor) -> None:
    pcrs = {number: bytes([number + 1]) * 48 for number in (0, 1, 2)}
    data = make_document(nitro_vendor, pcrs, Chosen(DATA, b"nonce", b"key"), NOW)
    document = nitro.NitroDocument.parse(data)
    roots = (simulator_root("nitro", nitro_vendor.root_sha256),)
    facts = nitro.verify(document, NOW + timedelta(minutes=1), timedelta(minutes=5), roots)
    assert (facts.platform, facts.report_data, facts.registers["pcr1"]) == ("sim-nitro", DATA, pcrs[1])
    assert nitro.appraise(facts, Floor({}), nitro.Demands({}, "i-simulated-"))
    assert nitro.require_bound(facts, DATA, b"nonce", b"key")
    with pytest.raises(Refused, match="simulated evidence"):
        nitro.verify(document, NOW, timedelta(minutes=5), VENDOR_ROOTS)


def test_an_enclave_without_measured_pcrs_is_a_debug_enclave(nitro_vendor: NitroVendor) -> None:
    document = nitro.NitroDocument.parse(make_document(nitro_vendor, {}, Chosen(), NOW))
    roots = (simulator_root("nitro", nitro_vendor.root_sha256),)
    facts = nitro.verify(document, NOW, timedelta(minutes=5), roots)
    with pytest.raises(Refused, match="debug"):
        nitro.appraise(facts, Floor({}), nitro.Demands({}, ""))


def nvidia_facts(vendor: NVIDIAVendor, machine: NVIDIAMachine):
    nonces = [bytes([index]) * 32 for index in range(len(machine.devices))]
    found = devices.parse_evidence(machine.evidence(nonces))
    roots = (simulator_root("nvidia", vendor.root_sha256),)
    return devices.verify_devices(found, nonces, (), NOW, roots)


def test_a_simulated_machine_is_one_machine_whose_firmware_matches(nvidia_vendor: NVIDIAVendor) -> None:
    found = nvidia_facts(nvidia_vendor, NVIDIAMachine(nvidia_vendor, 1, 8, 4, NOW))
    assert devices.require_one_machine(found, 4)
    roots = (simulator_root("nvidia-rim", nvidia_vendor.rim_root_sha256),)
    rims = {
        name: rim.verify(rim.RIMDocument.parse(data), (), NOW, roots)
        for name, data in make_rims(nvidia_vendor).items()
    }
    for device in found[:8]:
        assert rim.match(device, rims["driver"], rims["vbios"])
    for device in found[8:]:
        assert rim.match(device, None, rims["switch"])
    broken = replace(found[0], blocks=(bytes(48), *found[0].blocks[1:]))
    with pytest.raises(Rejected, match="golden values"):
        rim.match(broken, rims["driver"], rims["vbios"])


def test_a_manifest_has_what_its_schema_and_nvidias_verifier_demand(nvidia_vendor: NVIDIAVendor) -> None:
    for data in make_rims(nvidia_vendor).values():
        tag = ElementTree.fromstring(data)
        assert len(bytes.fromhex(tag.attrib["tagId"])) == 48
        (entity,), (meta,) = tag.findall(f"{SWID}Entity"), tag.findall(f"{SWID}Meta")
        assert (entity.attrib["name"], entity.attrib["role"]) == (ORGANISATION, "softwareCreator tagCreator")
        assert meta.attrib[f"{TCG}FirmwareManufacturerId"] == "0"
        for certificate in tag.iter(f"{DS}X509Certificate"):
            text = f"-----BEGIN CERTIFICATE-----\n{certificate.text}-----END CERTIFICATE-----\n"
            assert x509.load_pem_x509_certificate(text.encode())
            assert max(map(len, text.splitlines())) == 64


def test_an_answer_about_a_certificate_brings_its_signers(nvidia_vendor: NVIDIAVendor) -> None:
    machine = NVIDIAMachine(nvidia_vendor, 1, 1, 1, NOW)
    answers = [value for name, value in machine.collateral(NOW).items() if name.startswith("ocsp:")]
    assert answers
    for answer in answers:
        parsed = ocsp.load_der_ocsp_response(base64.b64decode(answer))
        (signer,) = parsed.certificates
        assert (
            parsed.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest
        )


def test_two_simulated_machines_cannot_be_spliced(nvidia_vendor: NVIDIAVendor) -> None:
    ours, theirs = (
        nvidia_facts(nvidia_vendor, NVIDIAMachine(nvidia_vendor, number, 2, 1, NOW)) for number in (1, 2)
    )
    with pytest.raises(Rejected, match="gpu links"):
        devices.require_one_machine((ours[0], theirs[1], ours[2]), 1)


def test_a_simulated_gpu_can_stand_alone(nvidia_vendor: NVIDIAVendor) -> None:
    (facts,) = nvidia_facts(nvidia_vendor, NVIDIAMachine(nvidia_vendor, 3, 1, 0, NOW))
    assert (devices.mode(facts), facts.links, facts.vbios) == ("single-gpu", (), "99.00.00.00.01")


def test_devices_answer_exactly_as_many_nonces_as_there_are_of_them(nvidia_vendor: NVIDIAVendor) -> None:
    machine, nonces = NVIDIAMachine(nvidia_vendor, 1, 2, 1, NOW), [bytes([at]) * 32 for at in range(3)]
    shown = show_devices(machine, nonces)
    assert [item.report.nonce for item in devices.parse_evidence(shown.devices)] == nonces
    for found, asked in ((machine, nonces[:2]), (machine, [*nonces, bytes(32)]), (None, nonces)):
        with pytest.raises(Refused, match="devices: "):
            show_devices(found, asked)


def test_production_refuses_simulated_devices_and_manifests_on_sight(nvidia_vendor: NVIDIAVendor) -> None:
    machine = NVIDIAMachine(nvidia_vendor, 1, 1, 0, NOW)
    found = devices.parse_evidence(machine.evidence([bytes(32)]))
    with pytest.raises(Refused, match="simulated evidence"):
        devices.verify_devices(found, [bytes(32)], (), NOW, VENDOR_ROOTS)
    with pytest.raises(Refused, match="simulated evidence"):
        rim.verify(rim.RIMDocument.parse(make_rims(nvidia_vendor)["driver"]), (), NOW, VENDOR_ROOTS)


def test_a_vendor_is_made_once_and_its_keys_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "vendor"
    first = open_nitro_vendor(folder, NOW)
    assert open_nitro_vendor(folder, NOW + timedelta(days=1)).root_sha256 == first.root_sha256
    assert open_nitro_vendor(tmp_path / "b", NOW).root_sha256 != first.root_sha256
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.key")} == {0o600}
    assert [path.name for path in folder.parent.iterdir()] == ["vendor"]


def test_a_vendor_with_open_or_broken_keys_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "vendor"
    open_nitro_vendor(folder, NOW)
    key = folder / "root.key"
    key.chmod(0o644)
    with pytest.raises(NotAuthorised, match="0644"):
        open_nitro_vendor(folder, NOW)
    key.chmod(0o600)
    key.write_text("not a key")
    with pytest.raises(Malformed):
        open_nitro_vendor(folder, NOW)
    key.unlink()
    (folder / "root.pem").unlink()
    (folder / "zone.pem").unlink()
    with pytest.raises(CannotTell):
        open_nitro_vendor(folder, NOW)


def test_the_snp_vendor_survives_a_restart(tmp_path: Path, snp_vendor: SNPVendor) -> None:
    assert snp_vendor.hwid.startswith(bytes.fromhex("ff53494d"))
    assert len(snp_vendor.hwid) == 64
    assert snp_facts(snp_vendor, SNPTCB()).chips == (snp_vendor.hwid.hex(),)
