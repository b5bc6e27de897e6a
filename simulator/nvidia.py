"""A simulated machine with NVIDIA GPUs and switches: reports, certificates, and manifests that match them.

DMTF DSP0274 (SPDM 1.1) and NVIDIA's opaque fields, as ``quotary.attestation.spdm`` reads them. Blocks are
digests of labels: there is no firmware to measure.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from quotary.attestation import spdm
from quotary.errors import Refused
from simulator.device import DeviceEvidence
from simulator.keys import Signer, Wish, issue, open_signers, sign_p384_big
from simulator.ocsp import make_answers
from simulator.rim import make_rim

LIFE = timedelta(days=3650)
DRIVER, VBIOS, SWITCH_BIOS = "999.1.1", "99.00.00.00.01", "99.10.00.00.01"
GPU_BLOCKS, SWITCH_BLOCKS = 64, 31
# Indexes that the two manifests of a GPU answer for, as NVIDIA's of the Hopper generation do.
VBIOS_INDEXES = (*range(7), *range(8, 13))
DRIVER_INDEXES = (7, *range(21, 35), *range(36, 42))
MODE_SINGLE, MODE_PROTECTED = b"\0\0", b"\2\0"

_FWID = hashlib.sha384(b"quotary simulator: GPU firmware\n").digest()
_SHA384_OID = bytes.fromhex("0609608648016503040202")
_LINKS = 18


@dataclass(frozen=True, slots=True)
class NVIDIAVendor:
    """One installation's NVIDIA: the roots of devices and of manifests, and the authorities below them."""

    root: Signer
    identity: Signer
    gpu_provisioner: Signer
    switch_provisioner: Signer
    rim_root: Signer
    rim_ca: Signer
    rim_signer: Signer

    @property
    def root_sha256(self) -> bytes:
        """What a simulation policy pins for devices."""
        return hashlib.sha256(self.root.der).digest()

    @property
    def rim_root_sha256(self) -> bytes:
        """What a simulation policy pins for manifests."""
        return hashlib.sha256(self.rim_root.der).digest()


def open_nvidia_vendor(directory: Path, now: datetime) -> NVIDIAVendor:
    """Load the vendor of this directory, or make it."""
    return NVIDIAVendor(**open_signers(directory, lambda: _create(now)))


@dataclass(frozen=True, slots=True)
class Device:
    """One device: its chain from the leaf to the root, its blocks, its opaque fields in order."""

    chain: tuple[Signer, ...]
    architecture: str
    blocks: tuple[bytes, ...]
    opaque: tuple[tuple[int, bytes], ...]

    def report(self, nonce: bytes) -> bytes:
        """Answer a request over 32 bytes; the request is signed too."""
        record = b"".join(
            bytes([index + 1, 1, 51, 0, 1, 48, 0]) + value for index, value in enumerate(self.blocks)
        )
        fields = b"".join(
            kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
            for kind, value in self.opaque
        )
        request = b"\x11\xe0\x01\xff" + nonce + b"\0"
        answer = b"\x11\x60\0\0" + bytes([len(self.blocks)]) + len(record).to_bytes(3, "little") + record
        answer += hashlib.sha256(b"responder\n" + nonce).digest() + len(fields).to_bytes(2, "little") + fields
        return request + answer + sign_p384_big(self.chain[0].key, request + answer)


class NVIDIAMachine:
    """GPUs and switches that report each other; without switches, GPUs that work alone.

    mode: what the machine's driver says of confidential computing
    """

    def __init__(self, vendor: NVIDIAVendor, number: int, gpus: int, switches: int, now: datetime) -> None:
        """number: 0 to 255, tells machines of one vendor apart; gpus: 1 to 8; switches: 0 to 4."""
        self.vendor, self.mode = vendor, "on"
        gpu_ids = [_pdi(number, 1, index) for index in range(gpus)]
        switch_ids = [_pdi(number, 2, index) for index in range(switches)]
        self.devices = (
            *(_gpu(vendor, pdi, switch_ids, now) for pdi in gpu_ids),
            *(_switch(vendor, pdi, gpu_ids, now) for pdi in switch_ids),
        )

    def evidence(self, nonces: Sequence[bytes]) -> bytes:
        """Write the evidence list, each device over the nonce of its place."""
        members = [
            {
                "arch": device.architecture,
                "certificate": _text("".join(signer.pem for signer in device.chain).encode()),
                "evidence": _text(device.report(nonce)),
                "nonce": nonce.hex(),
            }
            for device, nonce in zip(self.devices, nonces, strict=True)
        ]
        return json.dumps(members, separators=(",", ":")).encode()

    def show(self, nonces: Sequence[bytes], now: datetime) -> DeviceEvidence:
        """Answer nonces at this time; ``Refused`` for another number of them than of devices."""
        if len(nonces) != len(self.devices):
            raise Refused("devices", f"{len(nonces)} nonces", f"{len(self.devices)}, one for each device")
        return DeviceEvidence(self.evidence(nonces), self.collateral(now), self.mode)

    def collateral(self, now: datetime) -> dict[str, str]:
        """Give what NVIDIA would publish at this time: manifests, and answers about every certificate."""
        chains = [device.chain[1:] for device in self.devices] + [rim_chain(self.vendor)]
        manifests = {f"SIM_{name}": data.decode() for name, data in make_rims(self.vendor).items()}
        return manifests | make_answers(chains, now)


def rim_chain(vendor: NVIDIAVendor) -> tuple[Signer, ...]:
    """Give the certificates of manifests, from the signer to the root."""
    return (vendor.rim_signer, vendor.rim_ca, vendor.rim_root)


def make_rims(vendor: NVIDIAVendor) -> dict[str, bytes]:
    """Make the manifests that simulated devices match: ``driver``, ``vbios``, ``switch``."""
    chain = rim_chain(vendor)
    gpu, switch = _blocks("gpu", GPU_BLOCKS), _blocks("switch", SWITCH_BLOCKS)
    return {
        "driver": make_rim(chain, "GH100", DRIVER, {index: gpu[index] for index in DRIVER_INDEXES}),
        "vbios": make_rim(chain, "GH100", VBIOS, {index: gpu[index] for index in VBIOS_INDEXES}),
        "switch": make_rim(chain, "LS10", SWITCH_BIOS, dict(enumerate(switch))),
    }


def show_devices(machine: NVIDIAMachine | None, nonces: Sequence[bytes]) -> DeviceEvidence:
    """Answer for a simulated machine that may have no devices at all; NVIDIA's answers are made now."""
    if machine is None:
        raise Refused("devices", "a machine without GPUs", "one with them")
    return machine.show(nonces, datetime.now(UTC).replace(microsecond=0))


def _create(now: datetime) -> dict[str, Signer]:
    def ca(name: str, issuer: Signer | None, leaf: bool = False) -> Signer:
        return issue(Wish(name, LIFE, ca=not leaf), ec.generate_private_key(ec.SECP384R1()), issuer, now)

    root, rim_root = ca("SIM Device Identity CA", None), ca("SIM CoRIM signing Root CA", None)
    identity, rim_ca = ca("NVIDIA GH100 Identity", root), ca("SIM Reference Value CA", rim_root)
    return {
        "root": root,
        "identity": identity,
        "gpu_provisioner": ca("NVIDIA GH100 Provisioner ICA 1", identity),
        "switch_provisioner": ca("NVIDIA LS_10 Provisioner ICA 1", identity),
        "rim_root": rim_root,
        "rim_ca": rim_ca,
        "rim_signer": ca("SIM RIM L4 Signer", rim_ca, leaf=True),
    }


def _gpu(vendor: NVIDIAVendor, pdi: bytes, switches: Sequence[bytes], now: datetime) -> Device:
    packed = bytes.fromhex(VBIOS.replace(".", ""))
    opaque = [
        (spdm.VBIOS_VERSION, packed[3::-1] + packed[4:].ljust(4, b"\0")),
        (spdm.CHIP_SKU, b"000\0"),
        (spdm.PROJECT, b"0000\0"),
        (spdm.PROJECT_SKU, b"0000\0"),
        (spdm.DRIVER_VERSION, DRIVER.encode() + b"\0"),
        (spdm.NVDEC0, b"\x55"),
        (spdm.FWID, _FWID),
        (spdm.PROTECTED_PCIE, b"\xaa" if switches else b"\x55"),
        (spdm.FEATURE_FLAG, MODE_PROTECTED if switches else MODE_SINGLE),
    ]
    if switches:
        links = [switches[index % len(switches)][::-1] for index in range(_LINKS)]
        opaque.append((spdm.SWITCH_PDI, b"".join(links)))
    chain = _chain(vendor, vendor.gpu_provisioner, "GH100 A01 GSP", pdi, now)
    return Device(chain, "HOPPER", _blocks("gpu", GPU_BLOCKS), tuple(opaque))


def _switch(vendor: NVIDIAVendor, pdi: bytes, gpus: Sequence[bytes], now: datetime) -> Device:
    listed = b"".join(gpus).ljust(64, b"\0") + b"\xff" * 64
    opaque = (
        (spdm.VBIOS_VERSION, SWITCH_BIOS.encode()),
        (spdm.SWITCH_PDI, pdi),
        (spdm.SWITCH_GPUS, listed),
    )
    chain = _chain(vendor, vendor.switch_provisioner, "LS_10 A01 FSP", pdi, now)
    return Device(chain, "LS10", _blocks("switch", SWITCH_BLOCKS), opaque)


def _chain(vendor: NVIDIAVendor, above: Signer, unit: str, pdi: bytes, now: datetime) -> tuple[Signer, ...]:
    serial = int.from_bytes(b"\x41" + pdi, "big")
    brom = issue(
        Wish(f"{unit} BROM", LIFE, serial=serial), ec.generate_private_key(ec.SECP384R1()), above, now
    )
    fwid = _sequence(_SHA384_OID + b"\x04\x30" + _FWID)
    wish = Wish(
        f"{unit} FMC LF",
        LIFE,
        ca=False,
        extensions={"2.23.133.5.4.1": _sequence(b"\x02\x01\x01" + _sequence(b"\x05\x00") + fwid)},
    )
    leaf = issue(wish, ec.generate_private_key(ec.SECP384R1()), brom, now)
    return (leaf, brom, above, vendor.identity, vendor.root)


def _sequence(content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([0x30, len(content)]) + content


def _pdi(number: int, kind: int, index: int) -> bytes:
    return b"\xffSIM" + bytes([number, kind, 0, index + 1])


def _blocks(kind: str, count: int) -> tuple[bytes, ...]:
    return tuple(
        hashlib.sha384(f"quotary simulator: {kind} block {index}\n".encode()).digest()
        for index in range(count)
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
