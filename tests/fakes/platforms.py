"""Worlds on other hardware than TDX: simulated SEV-SNP machines, a chip's and a cloud's, and a Nitro enclave."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation.amd import GENOA
from quotary.attestation.snp import TCBS
from simulator.nitro import Chosen, NitroVendor, make_document, open_nitro_vendor
from simulator.snp import GUEST_POLICY, SNPTCB, SNPPlatform, SNPVendor, open_snp_vendor
from tests.fakes import amd, authority
from tests.fakes.machine import World

SNP_PRODUCT, NITRO_PRODUCT = "genoa-19-11-01", "nitro"
# What a row must list for the policy that clouds launch with: bit 16, in 8 little-endian bytes.
SMT = {"mask": "0000010000000000", "value": "0000010000000000"}
SNP_FLOOR: Mapping[str, object] = {
    "minimum": {"bootloader": 10, "fmc": 0, "microcode": 84, "snp": 27, "tee": 0},
    "evaluation_number": 0,
    "accepted_status": ["none"],
    "grace_seconds": 0,
    "denied_advisories": [],
    "denied_families": [],
    "denied_chips": [],
}


@dataclass(slots=True)
class SNPMachine:
    """Reports of one simulated machine; ``policy`` is the guest policy, ``host_data`` the host's choice."""

    platform: SNPPlatform
    policy: int = GUEST_POLICY
    host_data: bytes = bytes(32)

    @property
    def collateral(self) -> Mapping[str, str]:
        return self.platform.collateral

    def quote(self, registers: Mapping[str, bytes], report_data: bytes) -> bytes:
        return self.platform.report(registers["measurement"], self.host_data, report_data, self.policy)


@dataclass(slots=True)
class NitroMachine:
    """Documents of one simulated enclave, made at ``now``."""

    vendor: NitroVendor
    now: datetime = authority.NOW

    @property
    def collateral(self) -> Mapping[str, str]:
        return {}

    def quote(self, registers: Mapping[str, bytes], report_data: bytes) -> bytes:
        pcrs = {int(name.removeprefix("pcr")): value for name, value in registers.items()}
        return make_document(self.vendor, pcrs, Chosen(user_data=report_data), self.now)


def snp_vendor(folder: Path) -> SNPVendor:
    return open_snp_vendor(folder / "snp", authority.NOW)


def nitro_vendor(folder: Path) -> NitroVendor:
    return open_nitro_vendor(folder / "nitro", authority.NOW)


def snp_world(vendor: SNPVendor, tcb: SNPTCB | None = None) -> World:
    machine = SNPMachine(SNPPlatform(vendor, tcb or SNPTCB(), authority.NOW))
    return World(vendor, machine, kind="sim-snp", product=SNP_PRODUCT, floor=SNP_FLOOR).publish(
        guest_policy=SMT
    )


def nitro_world(vendor: NitroVendor) -> World:
    machine = NitroMachine(vendor)
    return World(vendor, machine, kind="sim-nitro", product=NITRO_PRODUCT, floor=None).publish()


CLOUD = "CN=cc-test-1.example.com"
_CLOUD_TCB = bytes([10, 0, 0, 0, 0, 0, 27, 84])


@dataclass(slots=True)
class CloudMachine:
    """A guest of a cloud that signs with a VLEK and answers from privilege level 1; also its vendor.

    values: fields of the report that are otherwise
    """

    values: Mapping[str, bytes] = field(default_factory=dict)
    ark: amd.Signer = field(default_factory=lambda: amd.certificate("ARK-Genoa", amd.rsa_key(0)))
    vlek: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))

    @property
    def root_sha256(self) -> bytes:
        return hashlib.sha256(self.ark.certificate.public_bytes(Encoding.DER)).digest()

    @property
    def collateral(self) -> Mapping[str, str]:
        asvk = amd.certificate("SEV-VLEK-Genoa", amd.rsa_key(2), self.ark, path_length=0)
        extensions = amd.endorsement(GENOA, _CLOUD_TCB, csp_id=CLOUD)
        leaf = amd.certificate("SEV-VLEK", self.vlek, asvk, extensions, ca=False)
        crl = amd.revocation_list(self.ark, [])
        return {"chain": leaf.pem + asvk.pem + self.ark.pem, "crl": crl.hex()}

    def quote(self, registers: Mapping[str, bytes], report_data: bytes) -> bytes:
        plain = {f"{which}_tcb": _CLOUD_TCB for which in TCBS}
        plain |= {"cpuid_family": b"\x19", "cpuid_model": b"\x11", "cpuid_stepping": b"\x01"}
        plain |= {"flags": b"\4\0\0\0", "vmpl": b"\1\0\0\0"}
        plain |= {"measurement": registers["measurement"], "report_data": report_data}
        return amd.report(5, self.vlek, plain | dict(self.values))


def cloud_world(**values: bytes) -> World:
    machine = CloudMachine(values)
    return World(machine, machine, kind="sim-snp", product=SNP_PRODUCT, floor=SNP_FLOOR).publish(
        guest_policy=SMT
    )
