"""Worlds on other hardware than TDX: a simulated SEV-SNP machine and a simulated Nitro enclave."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from simulator.nitro import Chosen, NitroVendor, make_document, open_nitro_vendor
from simulator.snp import GUEST_POLICY, SNPTCB, SNPPlatform, SNPVendor, open_snp_vendor
from tests.fakes import authority
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
