"""NVIDIA GPUs and NVSwitches: verify a measurement report (``spdm.py``) under the device's certificates.

Reference values are in ``rim.py``, membership of one machine in ``devices.py``.
``docs/evidence-snp-nitro-nvidia.md`` explains each field and check.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quotary.attestation import der, spdm
from quotary.attestation.certificates import Certificate, parse_chain, verify_chain
from quotary.attestation.facts import Check
from quotary.attestation.ocsp import Answer, good_until
from quotary.attestation.p384 import verify_p384
from quotary.attestation.roots import Root, select_root
from quotary.attestation.spdm import PDI_LENGTH, DeviceReport
from quotary.errors import Malformed, Rejected, Unsupported

PLATFORM = "nvidia"
CHAIN_LENGTH = 5

_MAX_GPUS_LISTED = 8
# What a device is called in the certificate that NVIDIA's provisioner gave its boot ROM.
_BROM = re.compile(r"([A-Z]{2}_?[0-9]{2,3}) [A-Z][0-9]{2} (GSP|FSP) BROM")
_ARCHITECTURES = {"GH100": ("GH100", "gpu"), "GB100": ("GB100", "gpu"), "LS_10": ("LS10", "switch")}
_FWID_HOPPER, _FWID_TCB_INFO = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
_SHA384_OID = bytes.fromhex("608648016503040202")
_FWIDS_TAG = 0xA6


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device after verification.

    platform:     ``nvidia`` under the vendor's root, ``sim-nvidia`` under a simulator's
    architecture: ``GH100``, ``GB100`` or ``LS10``, by the certificates
    kind:         ``gpu`` or ``switch``
    serial:       leaf certificate's serial number in hex: the device certificate, for deny lists
    pdi:          8 bytes, the device's identity on NVLink
    links:        PDIs of the switches that a GPU is linked to, one for each link; empty where not reported
    gpus:         PDIs of the GPUs that a switch lists; empty on a GPU
    driver:       version, empty on a switch
    vbios:        version in dots
    blocks:       48 bytes each, by index of the reference value
    opaque:       NVIDIA's fields by type
    checks:       what was looked at, in order
    good_until:   until when NVIDIA's answers say that it took no certificate back; None where none were there
    """

    platform: str
    architecture: str
    kind: str
    serial: str
    pdi: bytes
    links: tuple[bytes, ...]
    gpus: tuple[bytes, ...]
    driver: str
    vbios: str
    blocks: tuple[bytes, ...]
    opaque: Mapping[int, bytes]
    checks: tuple[Check, ...]
    simulated: bool
    judged_at: datetime
    good_until: datetime | None


def parse_device_chain(pem: bytes) -> tuple[Certificate, ...]:
    """Read a device's five certificates: leaf, boot ROM, provisioner, architecture, root."""
    return parse_chain(pem, CHAIN_LENGTH)


def verify(
    report: DeviceReport,
    chain: Sequence[Certificate],
    nonce: bytes,
    answers: Sequence[Answer],
    now: datetime,
    roots: Sequence[Root],
) -> DeviceFacts:
    """Believe a device's report over our nonce, or raise ``Rejected`` or ``Refused``.

    1. Nothing in it is a simulator's, unless the roots are; its last certificate is one of ``roots``.
    2. The chain ends in that root, is in force, and names one known architecture throughout.
    3. The nonce is ours.
    4. The leaf's key signed request and answer.
    5. The firmware id of the report, where it has one, is the leaf's.
    6. The vendor took no certificate back, as far as there are ``answers`` of its OCSP responder. It knows no
       leaf, which the device itself made. Without an answer for each other one the facts say "not checked".
    """
    root = select_root(roots, PLATFORM, chain)
    verify_chain("device chain", chain, root.fingerprint, now)
    architecture, kind = _architecture(chain)
    if not hmac.compare_digest(report.nonce, nonce):
        raise Rejected("device nonce", report.nonce.hex(), nonce.hex())
    verify_p384("device signature", chain[0].key, report.signature, report.signed)
    fwid = _firmware_id(report, chain[0])
    until = good_until("device revocation", chain[1:], answers, now)
    pdi = _pdi(chain[1])
    when = f"at {now.isoformat()}"
    checks = (
        Check("root", root.fingerprint.hex(), root.fingerprint.hex(), root.name),
        Check("device chain", chain[0].subject_text, f"in force {when}", root.name),
        revocation_check("device revocation", until, root.name),
        Check("device nonce", report.nonce.hex(), nonce.hex(), "caller"),
        Check("device signature", "holds over request and answer", "by the leaf", "device certificate"),
        fwid,
    )
    switch = kind == "switch"
    return DeviceFacts(
        platform=root.platform,
        architecture=architecture,
        kind=kind,
        serial=f"{chain[0].serial:x}",
        pdi=pdi,
        links=() if switch else _links(report.opaque),
        gpus=_listed_gpus(report.opaque, pdi) if switch else (),
        driver="" if switch else _text(report.opaque, spdm.DRIVER_VERSION),
        vbios=_vbios(report.opaque),
        blocks=report.blocks,
        opaque=report.opaque,
        checks=checks,
        simulated=root.simulated,
        judged_at=now,
        good_until=until,
    )


def revocation_check(name: str, until: datetime | None, anchor: str) -> Check:
    """Say until when a chain is good, or that nobody looked."""
    found = "not checked" if until is None else f"good until {until.isoformat()}"
    return Check(name, found, "good, by answers of NVIDIA's OCSP service", anchor)


def driver_rim_id(device: DeviceFacts) -> str:
    """Name the manifest of a GPU driver's reference values."""
    middle = "DRIVER_GH100" if device.architecture == "GH100" else f"CC_DRIVER_{device.architecture}"
    return f"NV_GPU_{middle}_{device.driver}"


def vbios_rim_id(device: DeviceFacts) -> str:
    """Name the manifest of a VBIOS's reference values (GPU), or of a switch's BIOS."""
    version = device.vbios.replace(".", "").upper()
    if device.kind == "switch":
        return f"NV_SWITCH_BIOS_5612_0002_890_{version}"
    parts = (_text(device.opaque, field).upper() for field in (spdm.PROJECT, spdm.PROJECT_SKU, spdm.CHIP_SKU))
    return f"NV_GPU_VBIOS_{'_'.join(parts)}_{version}"


def _architecture(chain: Sequence[Certificate]) -> tuple[str, str]:
    names = [certificate.common_name for certificate in chain]
    match = _BROM.fullmatch(names[1])
    if match is None or match[1] not in _ARCHITECTURES:
        raise Unsupported(f"no architecture is known for the boot ROM {names[1]!r}")
    # The leaf's name is the boot ROM's to choose, the provisioner's is NVIDIA's.
    rest = names[0], " ".join(names[2].split(" ")[:4])
    wanted = f"{match[0].removesuffix('BROM')}FMC LF", f"NVIDIA {match[1]} Provisioner ICA"
    if rest != wanted or chain[0].is_ca:
        raise Rejected("device chain", f"{rest[0]} by {rest[1]}", f"{wanted[0]} by {wanted[1]}, no CA")
    return _ARCHITECTURES[match[1]]


def _firmware_id(report: DeviceReport, leaf: Certificate) -> Check:
    wanted = _certified_firmware_id(leaf)
    found = report.opaque.get(spdm.FWID)
    if found is not None and found != wanted:
        raise Rejected("firmware id", found.hex(), wanted.hex())
    text = "not in the report (older drivers and switches)" if found is None else found.hex()
    return Check("firmware id", text, wanted.hex(), "device certificate")


def _certified_firmware_id(leaf: Certificate) -> bytes:
    hopper, info = leaf.extensions.get(_FWID_HOPPER), leaf.extensions.get(_FWID_TCB_INFO)
    parts = _sequence(der.items(hopper if hopper is not None else info or b""))
    if hopper is not None:
        return _digest(_sequence(parts[-1:]))
    fwids = [content for tag, content in parts if tag == _FWIDS_TAG]
    if len(fwids) != 1:
        raise Malformed("the leaf certificate has no firmware id")
    return _digest(_sequence(der.items(fwids[0])[:1]))


def _sequence(found: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    if [tag for tag, _ in found] != [der.SEQUENCE]:
        raise Malformed("the leaf certificate's firmware id is not a sequence")
    return der.items(found[0][1])


def _digest(pair: list[tuple[int, bytes]]) -> bytes:
    if len(pair) != 2 or pair[0] != (der.OID, _SHA384_OID):
        raise Malformed("the leaf certificate's firmware id is not a SHA-384 digest")
    return der.octets(pair[1], spdm.DIGEST_LENGTH)


def _pdi(brom: Certificate) -> bytes:
    # NVIDIA documents this nowhere; it held for all 91 devices that could be compared.
    if not 1 << 64 <= brom.serial < 1 << 72:
        raise Malformed(f"the boot ROM's serial number {brom.serial:x} has not 9 bytes")
    return brom.serial.to_bytes(9, "big")[1:]


def _links(opaque: Mapping[int, bytes]) -> tuple[bytes, ...]:
    found = opaque.get(spdm.SWITCH_PDI, b"")
    entries = [found[at : at + PDI_LENGTH] for at in range(0, len(found), PDI_LENGTH)]
    return tuple(entry[::-1] for entry in entries if any(entry))


def _listed_gpus(opaque: Mapping[int, bytes], pdi: bytes) -> tuple[bytes, ...]:
    if opaque.get(spdm.SWITCH_PDI) != pdi:
        raise Rejected(
            "switch pdi", opaque.get(spdm.SWITCH_PDI, b"").hex() or "none", f"{pdi.hex()} of its certificate"
        )
    found = opaque.get(spdm.SWITCH_GPUS, b"")[: _MAX_GPUS_LISTED * PDI_LENGTH]
    entries = [found[at : at + PDI_LENGTH] for at in range(0, len(found), PDI_LENGTH)]
    return tuple(entry for entry in entries if any(entry))


def _text(opaque: Mapping[int, bytes], kind: int) -> str:
    found = opaque.get(kind, b"").rstrip(b"\0")
    if not 1 <= len(found) <= 64 or re.fullmatch(rb"[0-9A-Za-z._-]+", found) is None:
        raise Malformed(f"opaque field {kind} is not a short text")
    return found.decode("ascii")


def _vbios(opaque: Mapping[int, bytes]) -> str:
    found = opaque.get(spdm.VBIOS_VERSION, b"")
    if len(found) != 8:
        return _text(opaque, spdm.VBIOS_VERSION)
    # A packed word: its low half from the top, then the lowest byte of its high half.
    packed = (*found[3::-1], found[4])
    return ".".join(f"{value:02X}" for value in packed)
