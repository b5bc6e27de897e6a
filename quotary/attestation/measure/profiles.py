"""Profiles: how a row's registers were computed, as data with a version and a digest.

A digest without its profile cannot be computed again: VMMs and firmware change what they measure. A profile
is a canonical document; a release names it and carries its SHA-256. Names end in a version and are never
reused.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from quotary.attestation.measure.uki import MEASURED
from quotary.canonical import canonical
from quotary.errors import Unsupported

_BOOT_VARIABLES = ("SecureBoot", "PK", "KEK", "db", "dbx", "separator")
_ACPI = ("acpi-loader", "acpi-rsdp", "acpi-tables")
_UIAPP = (
    "090100002c0055006900410070007000000004071400c9bdb87cebf8344faaea3ee4af6516a1"
    "0406140021aa2c4614760345836e8ab6f46623317fff0400"
)
_BOOT_MANAGER = (
    "090100002c0042006f006f0074004d0061006e0061006700650072004d0065006e007500410070007000000004071400c9bdb87cebf8"
    "344faaea3ee4af6516a104061400dc5bc2eef267954db1d5f81b2039d11d7fff0400"
)
_SETUP = (
    "010100002c0045004600490020004600690072006d007700610072006500200053006500740075007000000004071400c9bdb87cebf8"
    "344faaea3ee4af6516a10406140021aa2c4614760345836e8ab6f46623317fff0400"
)
_VARIABLE_AUTHORITY = (
    "fb66919801f1dfc9c4c273b6a739380790cb0fd3cb706a42f6ac050510ebc8618e7fba53a1564522f5c6f0dc9e1f41a6"
)
_RTMR1 = ("kernel", "calling-efi-application", "separator", "exit-boot-services", "exit-boot-services-ok")
_RTMR2 = ("load-options", "initrd")


@dataclass(frozen=True, slots=True)
class TDXProfile:
    """How a TDX launch is measured.

    page_order:   order of MRTD's records: ``single-pass`` or ``two-pass``
    kernel_rule:  which image is measured: ``raw`` or ``qemu-patched``
    initrd_token: where firmware writes ``initrd=initrd``: ``append``, ``prepend`` or ``none``
    acpi:         ``given`` with the launch, or ``empty``
    rtmr0…rtmr2:  names of the events in order
    data:         events whose measured bytes are the profile's own
    constants:    events known only by their digest, captured from real logs (48 bytes)
    """

    name: str
    page_order: str
    kernel_rule: str
    initrd_token: str
    acpi: str
    rtmr0: tuple[str, ...]
    rtmr1: tuple[str, ...]
    rtmr2: tuple[str, ...]
    data: Mapping[str, bytes]
    constants: Mapping[str, bytes]

    def document(self) -> bytes:
        """Write the profile's canonical bytes."""
        return canonical(
            {
                "v": 1,
                "name": self.name,
                "platform": "tdx",
                "page_order": self.page_order,
                "kernel_rule": self.kernel_rule,
                "initrd_token": self.initrd_token,
                "acpi": self.acpi,
                "rtmr0": list(self.rtmr0),
                "rtmr1": list(self.rtmr1),
                "rtmr2": list(self.rtmr2),
                "data": {name: value.hex() for name, value in self.data.items()},
                "constants": {name: value.hex() for name, value in self.constants.items()},
            }
        )


@dataclass(frozen=True, slots=True)
class SNPProfile:
    """How an SNP launch is measured: what the VMM writes into VMSAs and pages (all integers).

    rdx:             initial RDX, or None for the vCPU's CPUID signature
    memory_page_type: page type of SEC_MEM sections: 3 ZERO or 4 UNMEASURED
    cpuid_last:      whether the CPUID page comes after all other sections
    """

    name: str
    cs_attributes: int
    cs_attributes_ap: int
    ss_attributes: int
    tr_attributes: int
    g_pat: int
    rdx: int | None
    mxcsr: int
    x87_fcw: int
    vmsa_gpa: int
    memory_page_type: int
    cpuid_last: bool

    def document(self) -> bytes:
        """Write the profile's canonical bytes; addresses and masks in hex."""
        return canonical(
            {
                "v": 1,
                "name": self.name,
                "platform": "snp",
                "cs_attributes": self.cs_attributes,
                "cs_attributes_ap": self.cs_attributes_ap,
                "ss_attributes": self.ss_attributes,
                "tr_attributes": self.tr_attributes,
                "g_pat": f"{self.g_pat:016x}",
                "rdx": "cpuid signature" if self.rdx is None else f"{self.rdx:016x}",
                "mxcsr": self.mxcsr,
                "x87_fcw": self.x87_fcw,
                "vmsa_gpa": f"{self.vmsa_gpa:016x}",
                "memory_page_type": self.memory_page_type,
                "cpuid_last": self.cpuid_last,
            }
        )


@dataclass(frozen=True, slots=True)
class SVSMProfile:
    """How a launch into an SVSM is measured: what the VMM writes into VMSAs (all integers)."""

    name: str
    g_pat: int
    features: int
    mxcsr: int
    x87_fcw: int
    vmsa_gpa: int

    def document(self) -> bytes:
        """Write the profile's canonical bytes; addresses and masks in hex."""
        return canonical(
            {
                "v": 1,
                "name": self.name,
                "platform": "snp",
                "start": "svsm",
                "g_pat": f"{self.g_pat:016x}",
                "features": f"{self.features:016x}",
                "mxcsr": self.mxcsr,
                "x87_fcw": self.x87_fcw,
                "vmsa_gpa": f"{self.vmsa_gpa:016x}",
            }
        )


@dataclass(frozen=True, slots=True)
class ProcessProfile:
    """``process/v1``: the formula of ``process.py``; nothing about it varies."""

    name: str

    def document(self) -> bytes:
        """Write the profile's canonical bytes."""
        return canonical(
            {"v": 1, "name": self.name, "platform": "tdx", "formula": "docs/formats/measure-process.md"}
        )


@dataclass(frozen=True, slots=True)
class NitroProfile:
    """How a Nitro enclave's image is measured: the parts of the image that each PCR is over, in order.

    A part is ``kernel``, ``command-line``, ``ramdisks`` (all), ``ramdisk-first`` or ``ramdisks-rest``.
    """

    name: str
    image_version: int
    pcr0: tuple[str, ...]
    pcr1: tuple[str, ...]
    pcr2: tuple[str, ...]

    def document(self) -> bytes:
        """Write the profile's canonical bytes."""
        parts = {name: list(getattr(self, name)) for name in ("pcr0", "pcr1", "pcr2")}
        return canonical(
            {"v": 1, "name": self.name, "platform": "nitro", "image_version": self.image_version, **parts}
        )


Profile = TDXProfile | SNPProfile | SVSMProfile | ProcessProfile | NitroProfile

_DEFAULT_PAT = 0x0007040600070406
_GCE_PAT = 0x00070106
_TOP_48 = 0xFFFFFFFFF000

_EDK2_202502 = TDXProfile(
    name="tdx/qemu-direct-boot+edk2-202502/v1",
    page_order="single-pass",
    kernel_rule="qemu-patched",
    initrd_token="append",  # noqa: S106
    acpi="given",
    rtmr0=("td-hob", "cfv", *_BOOT_VARIABLES, *_ACPI, "BootOrder", "Boot0000"),
    rtmr1=_RTMR1,
    rtmr2=_RTMR2,
    data={"BootOrder": b"\0\0", "Boot0000": bytes.fromhex(_UIAPP)},
    constants={},
)
# The simulated launch: a machine of our own without ACPI tables, so that RTMR0 is exact from the files alone.
_SIMULATED = replace(_EDK2_202502, name="tdx/simulated-direct-boot/v1", acpi="empty")
# The same machine, whose firmware starts a unified kernel image with systemd's stub (257) from a disk.
_SIMULATED_UKI = replace(
    _SIMULATED,
    name="tdx/simulated-uki/v1",
    kernel_rule="raw",
    initrd_token="none",  # noqa: S106
    rtmr1=("calling-efi-application", "separator", "uki", *_RTMR1[:1], *_RTMR1[3:]),
    rtmr2=(*(f"{part}{section}" for section in MEASURED for part in ("name", "data")), *_RTMR2),
)
_EDK2_202608 = TDXProfile(
    name="tdx/qemu-direct-boot+edk2-202608/v1",
    page_order="single-pass",
    kernel_rule="raw",
    initrd_token="prepend",  # noqa: S106
    acpi="given",
    rtmr0=(
        *("td-hob", "cfv", "fw_cfg-BootMenu", "fw_cfg-bootorder", *_BOOT_VARIABLES, *_ACPI),
        *("variable-authority", "BootOrder", "Boot0000", "Boot0001"),
    ),
    rtmr1=_RTMR1,
    rtmr2=_RTMR2,
    data={
        "fw_cfg-BootMenu": b"\0\0",
        "fw_cfg-bootorder": b"/rom@genroms/linuxboot_dma.bin\0",
        "BootOrder": b"\0\0\1\0",
        "Boot0000": bytes.fromhex(_BOOT_MANAGER),
        "Boot0001": bytes.fromhex(_SETUP),
    },
    constants={"variable-authority": bytes.fromhex(_VARIABLE_AUTHORITY)},
)

_QEMU = SNPProfile(
    name="snp/qemu-kvm-init2/v1",
    cs_attributes=0x9B,
    cs_attributes_ap=0x9B,
    ss_attributes=0x93,
    tr_attributes=0x8B,
    g_pat=_DEFAULT_PAT,
    rdx=None,
    mxcsr=0x1F80,
    x87_fcw=0x37F,
    vmsa_gpa=_TOP_48,
    memory_page_type=3,
    cpuid_last=False,
)
_EC2_2026 = SNPProfile(
    name="snp/ec2-2026/v1",
    cs_attributes=0x9A,
    cs_attributes_ap=0x9B,
    ss_attributes=0x92,
    tr_attributes=0x83,
    g_pat=_DEFAULT_PAT,
    rdx=0x600,
    mxcsr=0,
    x87_fcw=0,
    vmsa_gpa=_TOP_48,
    memory_page_type=3,
    cpuid_last=True,
)
_QEMU_LEGACY = replace(_QEMU, name="snp/qemu-legacy/v1", mxcsr=0, x87_fcw=0)
_GCE_MILAN = replace(_QEMU_LEGACY, name="snp/gce-milan/v1", g_pat=_GCE_PAT, rdx=0x600, memory_page_type=4)
_QEMU_SVSM = SVSMProfile(
    name="snp/qemu-svsm/v1",
    g_pat=_DEFAULT_PAT,
    features=1,
    mxcsr=0x1F80,
    # Zero, unlike without an SVSM: reports of real machines agree (sev-snp-measure, tests/test_guest.py).
    x87_fcw=0,
    vmsa_gpa=_TOP_48,
)
_NITRO = NitroProfile(
    name="nitro/eif-v4/v1",
    image_version=4,
    pcr0=("kernel", "command-line", "ramdisks"),
    pcr1=("kernel", "command-line", "ramdisk-first"),
    pcr2=("ramdisks-rest",),
)

_PROFILES: tuple[Profile, ...] = (
    ProcessProfile("process/v1"),
    _SIMULATED,
    _SIMULATED_UKI,
    _EDK2_202502,
    _EDK2_202608,
    # A row cannot carry a name with a plus sign, so these two are what releases of hardware TDX name.
    replace(_EDK2_202502, name="tdx/qemu-direct-boot/edk2-202502/v1"),
    replace(_EDK2_202608, name="tdx/qemu-direct-boot/edk2-202608/v1"),
    # The same under VMMs that add a whole section before they extend it (QEMU 8 with Intel's own kernel).
    replace(_EDK2_202502, name="tdx/qemu-direct-boot/edk2-202502-two-pass/v1", page_order="two-pass"),
    replace(_EDK2_202608, name="tdx/qemu-direct-boot/edk2-202608-two-pass/v1", page_order="two-pass"),
    _QEMU,
    _QEMU_LEGACY,
    replace(_EC2_2026, name="snp/ec2-2023/v1", rdx=0),
    _EC2_2026,
    _GCE_MILAN,
    replace(_GCE_MILAN, name="snp/gce-genoa/v1", vmsa_gpa=0xFFFFFFFFFF000),
    _QEMU_SVSM,
    _NITRO,
)


def names() -> tuple[str, ...]:
    """List the profiles that this version can compute."""
    return tuple(profile.name for profile in _PROFILES)


def profile(name: str) -> Profile:
    """Find a profile by name, or raise ``Unsupported``."""
    for known in _PROFILES:
        if known.name == name:
            return known
    raise Unsupported(f"profile {name!r} is not known; known are {', '.join(names())}")


def tdx_profile(name: str) -> TDXProfile:
    """Find a TDX launch profile by name, or raise ``Unsupported``."""
    found = profile(name)
    if not isinstance(found, TDXProfile):
        raise Unsupported(f"profile {name!r} does not measure a TDX launch")
    return found


def snp_profile(name: str) -> SNPProfile:
    """Find an SNP launch profile by name, or raise ``Unsupported``."""
    found = profile(name)
    if not isinstance(found, SNPProfile):
        raise Unsupported(f"profile {name!r} does not measure an SNP launch")
    return found


def svsm_profile(name: str) -> SVSMProfile:
    """Find a profile of launches into an SVSM by name, or raise ``Unsupported``."""
    found = profile(name)
    if not isinstance(found, SVSMProfile):
        raise Unsupported(f"profile {name!r} does not measure a launch into an SVSM")
    return found


def nitro_profile(name: str) -> NitroProfile:
    """Find a Nitro image profile by name, or raise ``Unsupported``."""
    found = profile(name)
    if not isinstance(found, NitroProfile):
        raise Unsupported(f"profile {name!r} does not measure a Nitro image")
    return found


def profile_sha256(name: str) -> bytes:
    """Hash a profile's document (32 bytes), as a release's row carries it."""
    return hashlib.sha256(profile(name).document()).digest()
