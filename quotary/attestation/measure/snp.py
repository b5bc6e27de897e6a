"""The launch digest of an SEV-SNP guest (AMD SEV-SNP ABI specification, SNP_LAUNCH_UPDATE, PAGE_INFO).

``LD = SHA-384(PAGE_INFO)`` page by page, each PAGE_INFO holding the digest before it. Order: the firmware,
its metadata's sections, one VMSA a vCPU. What a VMM writes into VMSAs is the profile's data.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from quotary.attestation.measure.profiles import SNPProfile
from quotary.attestation.measure.sev import (
    CPUID,
    FOUR_GIB,
    KERNEL_HASHES,
    PAGE,
    SEC_MEM,
    SECRETS,
    KernelHashes,
    SEVFirmware,
    SEVSection,
    sev_firmware,
)
from quotary.attestation.measure.trace import ZERO, Measured, Step
from quotary.attestation.measure.vmsa import real_mode
from quotary.errors import Malformed

NORMAL, VMSA, ZERO_PAGE, UNMEASURED, SECRETS_PAGE, CPUID_PAGE = 1, 2, 3, 4, 5, 6
BSP_EIP = 0xFFFFFFF0
MAX_VCPUS = 512


@dataclass(frozen=True, slots=True)
class SNPLaunch:
    """What a VMM starts.

    firmware:  the whole image
    kernel:    hashes of a directly booted kernel, or None
    vcpus:     number of virtual processors
    signature: their CPUID signature (function 1, EAX)
    features:  SEV_FEATURES of the VMSA; bit 0 is SNP
    """

    firmware: bytes
    kernel: KernelHashes | None
    vcpus: int
    signature: int
    features: int


def measure(launch: SNPLaunch, profile: SNPProfile) -> Measured:
    """Compute ``measurement`` of a launch under a profile, with a step for each page that counts."""
    if len(launch.firmware) % PAGE:
        raise Malformed("firmware is not of whole pages")
    digest = LaunchDigest()
    digest.image(FOUR_GIB - len(launch.firmware), launch.firmware, "firmware page")
    return measure_from(digest, sev_firmware(launch.firmware), launch, profile)


def measure_from(
    digest: "LaunchDigest", firmware: SEVFirmware, launch: SNPLaunch, profile: SNPProfile
) -> Measured:
    """Go on from a digest that already holds the firmware's pages (published metadata without the file)."""
    if not 1 <= launch.vcpus <= MAX_VCPUS:
        raise Malformed(f"{launch.vcpus} vCPUs, 1 to {MAX_VCPUS} are allowed")
    kinds = [section.kind for section in firmware.sections]
    if launch.kernel is not None and (KERNEL_HASHES not in kinds or not firmware.hash_table_gpa):
        raise Malformed("a kernel is given and the firmware has no place for its hashes")
    if launch.kernel is not None:
        digest.steps += _kernel_steps(launch.kernel, digest.value)
    for section in _ordered(firmware.sections, profile.cpuid_last):
        _add(digest, section, firmware, launch.kernel, profile)
    for number in range(launch.vcpus):
        eip = BSP_EIP if number == 0 else firmware.reset_eip
        page = real_mode(profile, eip, launch.signature, launch.features, first=number == 0)
        digest.page(VMSA, profile.vmsa_gpa, page, f"vmsa {number}")
    return Measured({"measurement": digest.value}, tuple(digest.steps))


class LaunchDigest:
    """A launch digest on its way: 48 zero bytes, or the digest after the firmware."""

    def __init__(self, value: bytes = ZERO) -> None:
        self.value = value
        self.steps: list[Step] = []

    def image(self, gpa: int, image: bytes, name: str) -> None:
        """Add an image of whole pages at this address."""
        for offset in range(0, len(image), PAGE):
            self.page(NORMAL, gpa + offset, image[offset : offset + PAGE], name)

    def page(self, kind: int, gpa: int, content: bytes | None, name: str) -> None:
        """Add one page; content is None for kinds whose content does not count."""
        contents = ZERO if content is None else hashlib.sha384(content).digest()
        info = struct.pack("<48s48sHBB4xQ", self.value, contents, 0x70, kind, 0, gpa)
        self.value = hashlib.sha384(info).digest()
        self.steps.append(Step("measurement", f"{name} {gpa:#x}", contents, self.value))


def _kernel_steps(kernel: KernelHashes, value: bytes) -> Iterator[Step]:
    # The page of hashes is one step; these come before it, so that the file that differs is the one named.
    for name in ("kernel", "initrd", "command_line"):
        digest = hashlib.sha384(getattr(kernel, name)).digest()
        yield Step("measurement", f"SHA-256 of the {name.replace('_', ' ')}", digest, value)


def _ordered(sections: tuple[SEVSection, ...], cpuid_last: bool) -> Iterator[SEVSection]:
    late = [section for section in sections if cpuid_last and section.kind == CPUID]
    yield from (section for section in sections if section not in late)
    yield from late


def _add(
    digest: LaunchDigest,
    section: SEVSection,
    firmware: SEVFirmware,
    kernel: KernelHashes | None,
    profile: SNPProfile,
) -> None:
    if section.kind == KERNEL_HASHES and kernel is not None:
        digest.page(NORMAL, section.gpa, kernel.page(firmware.hash_table_gpa), "kernel hashes")
        return
    kinds = {SEC_MEM: profile.memory_page_type, SECRETS: SECRETS_PAGE, CPUID: CPUID_PAGE}
    for gpa in range(section.gpa, section.gpa + section.size, PAGE):
        digest.page(kinds.get(section.kind, ZERO_PAGE), gpa, None, "prepared page")
