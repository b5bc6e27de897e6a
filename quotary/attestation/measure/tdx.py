"""Registers of a TDX guest that QEMU boots directly from a kernel file: MRTD, RTMR0, RTMR1, RTMR2.

Each runtime register is 48 zero bytes extended with event digests in the order that firmware and kernel
measure (Intel TDX Virtual Firmware Design Guide section 8; UEFI 2.10 section 38; Linux EFI stub). Which
events, in which order and by which rule is the profile's data (``profiles.py``): firmware versions differ,
the arithmetic does not.
"""

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quotary.attestation.measure.hob import td_hob
from quotary.attestation.measure.kernel import measured_kernel
from quotary.attestation.measure.pe import authenticode
from quotary.attestation.measure.profiles import TDXProfile
from quotary.attestation.measure.tdvf import configuration_volume, mrtd, sections
from quotary.attestation.measure.trace import ZERO, Measured, Step, extend
from quotary.attestation.measure.uki import INITRD, LINUX, MEASURED, command_line, parts
from quotary.errors import Malformed

ACPI_BLOBS = ("acpi-loader", "acpi-rsdp", "acpi-tables")

_GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_VARIABLES = {"SecureBoot": _GLOBAL, "PK": _GLOBAL, "KEK": _GLOBAL, "db": _SECURITY, "dbx": _SECURITY}
_TEXTS = {
    "calling-efi-application": b"Calling EFI Application from Boot Option",
    "exit-boot-services": b"Exit Boot Services Invocation",
    "exit-boot-services-ok": b"Exit Boot Services Returned with Success",
    "separator": bytes(4),
}

_NAMES = {f"name{section}": section for section in MEASURED}
_CONTENTS = {f"data{section}": section for section in MEASURED}
_OF_INITRD = ("initrd", f"name{INITRD}", f"data{INITRD}")

SELF_DESCRIBING = (*_VARIABLES, *_TEXTS, "BootOrder", "Boot0000", "Boot0001")
"""Events whose log entry holds the bytes that were hashed."""


@dataclass(frozen=True, slots=True)
class TDXLaunch:
    """What a VMM starts.

    memory: bytes of the guest's memory
    acpi:   SHA-384 of the three blobs that QEMU gives firmware, by ``ACPI_BLOBS`` name; empty where the
            profile has none
    uki:    the unified kernel image that firmware starts, and whose parts the others are; None at direct boot
    """

    firmware: bytes
    kernel: bytes
    initrd: bytes | None
    command_line: str
    memory: int
    acpi: Mapping[str, bytes]
    uki: bytes | None = None

    @classmethod
    def unified(cls, firmware: bytes, image: bytes, memory: int, acpi: Mapping[str, bytes]) -> "TDXLaunch":
        """Describe the start of a unified kernel image from a disk."""
        found = parts(image)
        line = command_line(found)
        return cls(firmware, found[LINUX], found.get(INITRD), line, memory, acpi, image)


def measure(launch: TDXLaunch, profile: TDXProfile) -> Measured:
    """Compute the five registers of a launch under a profile, with every step; RTMR3 stays zero."""
    firmware = mrtd(launch.firmware, profile.page_order)
    length = None if launch.initrd is None else len(launch.initrd)
    return assemble(firmware, lambda name: event_digest(name, launch, profile), profile, length)


def assemble(
    firmware: tuple[bytes, tuple[Step, ...]],
    digest: Callable[[str], bytes | None],
    profile: TDXProfile,
    initrd: int | None,
) -> Measured:
    """Put MRTD, its steps and digests of events together; a register with an unknown event is left out.

    digest: gives an event's digest by its name in the profile, or None
    initrd: its length in bytes, or None where there is none, and the kernel's stub measures none
    """
    registers, found = {"mrtd": firmware[0]}, list(firmware[1])
    for register, names in (("rtmr0", profile.rtmr0), ("rtmr1", profile.rtmr1), ("rtmr2", profile.rtmr2)):
        present = [name for name in names if name not in _OF_INITRD or initrd is not None]
        if register == "rtmr1" and profile.kernel_rule == "qemu-patched":
            # QEMU writes the initrd's place into the kernel: where only that differs, this step says so.
            found.append(Step(register, "length of the initrd", sha384(str(initrd).encode()), ZERO))
        digests = [(name, one) for name in present if (one := digest(name)) is not None]
        if len(digests) == len(present):
            registers[register], more = extend(register, digests)
            found += more
    registers["rtmr3"] = ZERO
    return Measured(registers, tuple(found))


def fixed_digest(name: str, profile: TDXProfile) -> bytes | None:
    """Give the digest of an event (48 bytes) that the profile alone decides; None for the launch's own."""
    if name in profile.constants:
        return profile.constants[name]
    if name in profile.data:
        return sha384(profile.data[name])
    if name in _VARIABLES:
        return sha384(empty_variable(name, _VARIABLES[name]))
    if name in ACPI_BLOBS and profile.acpi == "empty":
        return sha384(b"")
    if name in _NAMES:
        return sha384(_NAMES[name].encode() + b"\0")
    return sha384(_TEXTS[name]) if name in _TEXTS else None


def event_digest(name: str, launch: TDXLaunch, profile: TDXProfile) -> bytes:
    """Compute the digest of one event (48 bytes) by its name in the profile."""
    fixed = None if name in ACPI_BLOBS else fixed_digest(name, profile)
    if fixed is not None:
        return fixed
    rules: Mapping[str, Callable[[], bytes]] = {
        "td-hob": lambda: sha384(td_hob(launch.memory, sections(launch.firmware))),
        "cfv": lambda: sha384(configuration_volume(launch.firmware)),
        "kernel": lambda: authenticode(_kernel(launch, profile)),
        "load-options": lambda: sha384(load_options(launch, profile)),
        "initrd": lambda: sha384(launch.initrd or b""),
        "uki": lambda: authenticode(_unified(launch)),
        **{
            one: lambda section=section: sha384(parts(_unified(launch))[section])  # type: ignore[misc]
            for one, section in _CONTENTS.items()
        },
        **{blob: lambda blob=blob: _acpi(launch, profile, blob) for blob in ACPI_BLOBS},  # type: ignore[misc]
    }
    if name not in rules:
        raise Malformed(f"no rule for the event {name!r}")
    return rules[name]()


def load_options(launch: TDXLaunch, profile: TDXProfile) -> bytes:
    """Give the kernel's load options as the EFI stub measures them: UCS-2 with a final NUL."""
    line = launch.command_line
    if not (line.isascii() and line.isprintable()):
        raise Malformed("a command line is of printable ASCII characters")
    if launch.initrd is not None and profile.initrd_token != "none":  # noqa: S105
        line = f"{line} initrd=initrd" if profile.initrd_token == "append" else f"initrd=initrd {line}"  # noqa: S105
    return (line + "\0").encode("utf-16-le")


def empty_variable(name: str, namespace: uuid.UUID) -> bytes:
    """Give the measured bytes of a UEFI variable without data (UEFI_VARIABLE_DATA)."""
    return namespace.bytes_le + len(name).to_bytes(8, "little") + bytes(8) + name.encode("utf-16-le")


def _kernel(launch: TDXLaunch, profile: TDXProfile) -> bytes:
    length = None if launch.initrd is None else len(launch.initrd)
    return measured_kernel(launch.kernel, length, launch.memory, profile.kernel_rule)


def _unified(launch: TDXLaunch) -> bytes:
    if launch.uki is None:
        raise Malformed("the profile is of a unified kernel image, the launch is of a kernel")
    return launch.uki


def _acpi(launch: TDXLaunch, profile: TDXProfile, name: str) -> bytes:
    if (name in launch.acpi) != (profile.acpi == "given"):
        raise Malformed(f"the profile takes {profile.acpi} ACPI tables, the launch disagrees about {name}")
    return launch.acpi[name] if profile.acpi == "given" else sha384(b"")


def sha384(data: bytes) -> bytes:
    """Hash what an event is of."""
    return hashlib.sha384(data).digest()
