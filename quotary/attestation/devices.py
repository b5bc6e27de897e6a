"""All devices of one machine: the evidence list, every device by itself, and that they belong together.

The list is NVIDIA's SDK format: a JSON array of ``{arch, certificate, evidence, nonce}``, certificate and
evidence in base64. ``arch`` and ``nonce`` are labels beside the evidence and are not believed. What ties GPUs
and switches to each other is the PDI, a device's identity on NVLink: switches report the GPUs on their ports,
GPUs report the switches on their links. Nothing here ties them to the CPU: the binding's digest over these
very bytes does.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from quotary.attestation import spdm
from quotary.attestation.appraise import Floor
from quotary.attestation.certificates import Certificate
from quotary.attestation.facts import Check
from quotary.attestation.nvidia import DeviceFacts, parse_device_chain, verify
from quotary.attestation.ocsp import Answer
from quotary.attestation.roots import Root
from quotary.attestation.spdm import DeviceReport
from quotary.canonical import unb64
from quotary.errors import Malformed, Refused, Rejected

MAX_EVIDENCE = 1 << 20
MAX_DEVICES = 64
MAX_CHAIN = 16 * 1024

# Feature flag of newer GPUs: how the machine was set up.
MODES = {b"\0\0": "single-gpu", b"\1\0": "multi-gpu", b"\2\0": "protected-pcie"}
PROTECTED_PCIE_ON = b"\xaa"

ANY = "any"
# What a row lists as the drivers of switches, which report none.
NO_DRIVER = "none"
NO_STATUS = "none"

_MEMBERS = {"arch", "certificate", "evidence", "nonce"}


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """One device's evidence, not yet believed."""

    report: DeviceReport
    chain: tuple[Certificate, ...]


class Rule(Protocol):
    """What a row demands of the devices of one architecture (``devices`` of a release's row)."""

    @property
    def architecture(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def drivers(self) -> tuple[str, ...]: ...
    @property
    def vbios(self) -> tuple[str, ...]: ...


def parse_evidence(data: bytes) -> tuple[DeviceEvidence, ...]:
    """Read an evidence list of at most ``MAX_EVIDENCE`` bytes and 1 to ``MAX_DEVICES`` devices."""
    if len(data) > MAX_EVIDENCE:
        raise Malformed(f"device evidence has {len(data)} bytes, at most {MAX_EVIDENCE} are allowed")
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("device evidence is not JSON") from error
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_DEVICES:
        raise Malformed(f"device evidence is not a list of 1 to {MAX_DEVICES} devices")
    return tuple(_device(member) for member in found)


def verify_devices(
    evidence: Sequence[DeviceEvidence],
    nonces: Sequence[bytes],
    answers: Sequence[Answer],
    now: datetime,
    roots: Sequence[Root],
) -> tuple[DeviceFacts, ...]:
    """Believe every device over the nonce of its place in the list, and that each is there once."""
    if len(nonces) != len(evidence):
        raise Rejected("device count", str(len(evidence)), f"{len(nonces)}, one for each nonce")
    found = tuple(
        verify(item.report, item.chain, nonce, answers, now, roots)
        for item, nonce in zip(evidence, nonces, strict=True)
    )
    for identities in ([device.serial for device in found], [device.pdi.hex() for device in found]):
        twice = [identity for index, identity in enumerate(identities) if identity in identities[:index]]
        if twice:
            raise Rejected("device identity", f"{twice[0]} twice", "each device once")
    return found


def meet_rules(
    devices: Sequence[DeviceFacts], rules: Sequence[Rule], modes: Sequence[str], revocation: str
) -> tuple[Check, ...]:
    """Hold all devices against a row: which there are, how many of each, their driver, VBIOS and mode.

    modes:      admitted ``mode`` words; older firmware reports none, which is ``unreported``
    revocation: ``required`` demands of every device that its vendor answered for it, ``any`` does not
    """
    wanted = [rule.architecture for rule in rules]
    for device in devices:
        if device.architecture.lower() not in wanted:
            raise Refused("device architecture", device.architecture.lower(), ", ".join(wanted))
    for rule in rules:
        _meet_rule([device for device in devices if device.architecture.lower() == rule.architecture], rule)
    for device in devices:
        if device.kind == "gpu" and mode(device) not in modes:
            raise Refused("device mode", mode(device), ", ".join(modes) or "none")
    unasked = [device.serial for device in devices if device.good_until is None]
    if revocation != ANY and unasked:
        raise Refused("device revocation", f"nothing about {unasked[0]}", "answers of NVIDIA's OCSP service")
    text = ", ".join(f"{rule.count} {rule.architecture}" for rule in rules)
    return (Check("devices", text, f"{text}, listed driver, VBIOS and mode", "row of the release"),)


def meet_floor(devices: Sequence[DeviceFacts], floor: Floor) -> tuple[Check, ...]:
    """Hold devices of one architecture against its floor: versions, and what it denies.

    A minimum may name ``driver`` and ``vbios`` (``version_number``); denied are architectures, and devices by
    serial number or PDI in hex. NVIDIA has no word for how good a level is, so a floor must accept ``none``.
    """
    if floor.evaluation_number:
        raise Refused("tcb evaluation number", "none", f"at least {floor.evaluation_number}")
    if NO_STATUS not in floor.accepted_status:
        raise Refused("tcb status", NO_STATUS, ", ".join(floor.accepted_status))
    for device in devices:
        _meet_minimum(device, floor)
        if device.architecture.lower() in floor.denied_families:
            raise Refused("denied family", device.architecture.lower(), "none of the floor's list")
        for identity in (device.serial, device.pdi.hex()):
            if identity in floor.denied_chips:
                raise Refused("denied chip", identity, "none of the floor's list")
    least = ", ".join(f"{name} {value!r}" for name, value in sorted(floor.minimum.items())) or "no minimum"
    return (Check("tcb minimum", f"{len(devices)} devices", f"{least}, none denied", "floor of the devices"),)


def version_number(device: DeviceFacts, name: str) -> int | None:
    """Write a device's ``driver`` or ``vbios`` version as the number that floors compare, or None.

    driver: ``580.95.05`` is 580,095,005: three groups of three decimal digits; vbios: ``96.00.DA.00.11`` is
    0x9600DA0011, five bytes.
    """
    if name == "driver" and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3}){1,2}", device.driver, re.ASCII):
        major, middle, minor = (*map(int, device.driver.split(".")), 0)[:3]
        return major * 1_000_000 + middle * 1000 + minor
    if name == "vbios" and re.fullmatch(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}", device.vbios, re.ASCII):
        return int(device.vbios.replace(".", ""), 16)
    return None


def mode(device: DeviceFacts) -> str:
    """Say how a GPU was set up, from its feature flag and its protected PCIe state."""
    flag, protected = device.opaque.get(spdm.FEATURE_FLAG), device.opaque.get(spdm.PROTECTED_PCIE)
    if flag is None:
        return "protected-pcie" if protected == PROTECTED_PCIE_ON else "unreported"
    found = MODES.get(flag, "unknown")
    # The two fields must tell one story.
    return found if (found == "protected-pcie") == (protected == PROTECTED_PCIE_ON) else "unknown"


def require_one_machine(devices: Sequence[DeviceFacts], switches: int) -> tuple[Check, ...]:
    """Require that all GPUs hang on one set of switches, and that the switches are those.

    switches: how many NVSwitches must be in the evidence; 0 where only the GPUs' word is wanted
    1. Every GPU reports links, and all report the same set of switches (check ``gpu links``).
    2. Where switches are wanted: there are as many, and the GPUs' links are exactly they (``switch count``,
       ``gpu links``).
    3. Every switch lists exactly the GPUs (``switch gpus``).
    """
    gpus = {device.pdi for device in devices if device.kind == "gpu"}
    found = [device for device in devices if device.kind == "switch"]
    if len(found) != switches:
        raise Refused("switch count", str(len(found)), str(switches))
    links = {frozenset(device.links) for device in devices if device.kind == "gpu"}
    if len(links) != 1 or not min(links):
        raise Rejected("gpu links", f"{len(links)} sets of switches", "one set, the same on every GPU")
    (linked,) = links
    present = {device.pdi for device in found}
    if found and linked != present:
        raise Rejected("gpu links", _names(linked), f"{_names(present)} of the switches")
    for device in found:
        if set(device.gpus) != gpus:
            raise Rejected("switch gpus", _names(set(device.gpus)), f"{_names(gpus)} of the GPUs")
    text = f"{len(gpus)} GPUs on {len(linked)} switches"
    return (Check("one machine", text, "the same devices in every report", "device reports"),)


def _meet_rule(found: Sequence[DeviceFacts], rule: Rule) -> None:
    if len(found) != rule.count:
        raise Refused("device count", f"{len(found)} {rule.architecture}", f"{rule.count}")
    for device in found:
        rows = (
            ("driver version", device.driver or NO_DRIVER, rule.drivers),
            ("vbios version", device.vbios.upper(), tuple(version.upper() for version in rule.vbios)),
        )
        for check, version, listed in rows:
            if version not in listed:
                raise Refused(check, version, ", ".join(listed) or "none")


def _meet_minimum(device: DeviceFacts, floor: Floor) -> None:
    for name, least in floor.minimum.items():
        value = version_number(device, name)
        if value is None or not isinstance(least, int) or value < least:
            raise Refused("tcb minimum", f"{name} {value}", f"at least {least!r}")


def _device(member: object) -> DeviceEvidence:
    if not isinstance(member, dict) or set(member) != _MEMBERS:
        raise Malformed("a device has not exactly the members arch, certificate, evidence, nonce")
    if not all(isinstance(value, str) for value in member.values()):
        raise Malformed("a device's members are not all text")
    chain = unb64(member["certificate"])
    if len(chain) > MAX_CHAIN or re.search(rb"[^\x00-\x7f]", chain):
        raise Malformed(f"a device's chain is longer than {MAX_CHAIN} bytes or no text")
    return DeviceEvidence(DeviceReport.parse(unb64(member["evidence"])), parse_device_chain(chain))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("device evidence has a member twice")
    return found


def _refuse(text: str) -> object:
    raise Malformed(f"device evidence has the constant {text}")


def _names(identities: set[bytes] | frozenset[bytes]) -> str:
    return ", ".join(sorted(identity.hex() for identity in identities)) or "none"
