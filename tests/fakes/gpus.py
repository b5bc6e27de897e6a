"""GPUs and switches of a simulated machine, and what release, log and policy say of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from quotary.attestation.binding import gpu_nonce
from quotary.statements.keys import key_tcb
from simulator.nvidia import DRIVER, SWITCH_BIOS, VBIOS, NVIDIAMachine, NVIDIAVendor, open_nvidia_vendor
from tests.fakes import authority

PLATFORM = "sim-nvidia"


def device_floor(**changes: object) -> dict[str, object]:
    """A floor that simulated GPUs just reach."""
    return {
        "minimum": {"driver": 999_001_001, "vbios": 0x9900000001},
        "evaluation_number": 0,
        "accepted_status": ["none"],
        "grace_seconds": 0,
        "denied_advisories": [],
        "denied_families": [],
        "denied_chips": [],
        **changes,
    }


def nvidia_vendor(folder: Path) -> NVIDIAVendor:
    return open_nvidia_vendor(folder / "nvidia", authority.NOW)


@dataclass(slots=True)
class GPUs:
    """The devices of one machine; ``floors`` are what the log says, by architecture."""

    machine: NVIDIAMachine
    floors: Mapping[str, Mapping[str, object]] = field(
        default_factory=lambda: {
            "gh100": device_floor(),
            "ls10": device_floor(minimum={"vbios": 0x9910000001}),
        }
    )

    @classmethod
    def of(cls, vendor: NVIDIAVendor, gpus: int, switches: int, number: int = 1) -> "GPUs":
        return cls(NVIDIAMachine(vendor, number, gpus, switches, authority.NOW))

    def demands(self) -> list[dict[str, object]]:
        """What a row lists to demand exactly these devices."""
        switches = sum(device.architecture == "LS10" for device in self.machine.devices)
        gpus = len(self.machine.devices) - switches
        rows: list[dict[str, object]] = [
            {"architecture": "gh100", "count": gpus, "drivers": [DRIVER], "vbios": [VBIOS]},
            {"architecture": "ls10", "count": switches, "drivers": ["none"], "vbios": [SWITCH_BIOS]},
        ]
        return rows if switches else rows[:1]

    def rules(self) -> dict[str, object]:
        """What a policy says of devices, with everything demanded that can be."""
        return {
            "floors": {name: dict(floor) for name, floor in self.floors.items()},
            "modes": ["protected-pcie", "single-gpu"],
            "revocation": "required",
            "simulator_root_sha256": self.machine.vendor.root_sha256.hex(),
            "simulator_rim_root_sha256": self.machine.vendor.rim_root_sha256.hex(),
        }

    def floor_keys(self) -> list[bytes]:
        return [key_tcb(PLATFORM, name) for name in self.floors]

    def evidence(self, keyset: bytes) -> bytes:
        """The evidence list for a keyset's digest."""
        return self.machine.evidence([gpu_nonce(keyset, at) for at in range(len(self.machine.devices))])

    def collateral(self, now: datetime) -> dict[str, str]:
        return self.machine.collateral(now)
