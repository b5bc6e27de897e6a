"""The launch digest of an SEV-SNP guest that starts in an SVSM (COCONUT-SVSM under QEMU): code at VMPL 0 that
serves the guest's firmware.

Order: the firmware, the SVSM's image, the sections of the **SVSM's** metadata, one VMSA a vCPU, all the same.
The image ends where firmware and its variable store begin. No kernel is hashed:
such a guest boots from a disk, and what it boots is measured into the SVSM's TPM, which is not computed here.
"""

import uuid
from dataclasses import dataclass

from quotary.attestation.layout import little
from quotary.attestation.measure.guids import guid_table
from quotary.attestation.measure.profiles import SVSMProfile
from quotary.attestation.measure.sev import (
    CPUID,
    FOUR_GIB,
    PAGE,
    SECRETS,
    SEVSection,
    sev_sections,
)
from quotary.attestation.measure.snp import (
    CPUID_PAGE,
    MAX_VCPUS,
    SECRETS_PAGE,
    VMSA,
    ZERO_PAGE,
    LaunchDigest,
)
from quotary.attestation.measure.trace import Measured
from quotary.attestation.measure.vmsa import flat
from quotary.errors import Malformed

SVSM_INFO = uuid.UUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd")
_KINDS = {SECRETS: SECRETS_PAGE, CPUID: CPUID_PAGE}


@dataclass(frozen=True, slots=True)
class SVSMLaunch:
    """What a VMM starts.

    firmware:  the guest's firmware, the whole image without its variable store
    svsm:      the SVSM's image
    variables: bytes of the variable store in front of the firmware
    vcpus:     number of virtual processors
    signature: their CPUID signature (function 1, EAX)
    """

    firmware: bytes
    svsm: bytes
    variables: int
    vcpus: int
    signature: int


def measure(launch: SVSMLaunch, profile: SVSMProfile) -> Measured:
    """Compute ``measurement`` of a launch, with a step for each page that counts."""
    if not 1 <= launch.vcpus <= MAX_VCPUS:
        raise Malformed(f"{launch.vcpus} vCPUs, 1 to {MAX_VCPUS} are allowed")
    if any(length % PAGE for length in (len(launch.firmware), len(launch.svsm), launch.variables)):
        raise Malformed("firmware, SVSM and variable store are not of whole pages")
    start = FOUR_GIB - len(launch.firmware)
    base = start - launch.variables - len(launch.svsm)
    if launch.variables < 0 or base < 0:
        raise Malformed("firmware, SVSM and variable store do not fit below 4 GiB")
    entry, sections = _image(launch.svsm, base)
    digest = LaunchDigest()
    digest.image(start, launch.firmware, "firmware page")
    digest.image(base, launch.svsm, "svsm page")
    for section in sections:
        for gpa in range(section.gpa, section.gpa + section.size, PAGE):
            digest.page(_KINDS.get(section.kind, ZERO_PAGE), gpa, None, "prepared page")
    page = flat(profile, entry, launch.signature)
    for number in range(launch.vcpus):
        digest.page(VMSA, profile.vmsa_gpa, page, f"vmsa {number}")
    return Measured({"measurement": digest.value}, tuple(digest.steps))


def _image(svsm: bytes, base: int) -> tuple[int, tuple[SEVSection, ...]]:
    table = guid_table(svsm)
    offset = table.get(SVSM_INFO, b"")[:4]
    if len(offset) != 4 or little(offset) >= len(svsm):
        raise Malformed("SVSM does not say where it begins")
    sections = sev_sections(svsm, table)
    if any(section.gpa + section.size > base for section in sections):
        raise Malformed("SVSM asks for memory that its own image takes")
    return base + little(offset), sections
