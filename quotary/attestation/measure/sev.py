"""SEV-SNP firmware: the metadata that tells a VMM which pages to add, and the page of kernel hashes.

edk2, OvmfPkg/ResetVector (OVMF SEV metadata) and OvmfPkg/AmdSev (hash table); offsets in bytes, little
endian.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.measure.guids import (
    SEV_HASH_TABLE,
    SEV_METADATA_OFFSET,
    SEV_RESET_BLOCK,
    guid_table,
    word,
)
from quotary.errors import Malformed

PAGE = 4096
FOUR_GIB = 1 << 32
SEC_MEM, SECRETS, CPUID, SVSM_CAA, KERNEL_HASHES = 1, 2, 3, 4, 0x10
MAX_SECTIONS = 64
MAX_SECTION = 64 << 30

_KINDS = (SEC_MEM, SECRETS, CPUID, SVSM_CAA, KERNEL_HASHES)
_HEADER = Layout(
    "SEV metadata", 16, fields(("signature", 0, 4), ("length", 4, 4), ("version", 8, 4), ("count", 12, 4))
)
_SECTION = Layout("SEV section", 12, fields(("gpa", 0, 4), ("size", 4, 4), ("kind", 8, 4)))

_TABLE = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_COMMAND_LINE = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b")


@dataclass(frozen=True, slots=True)
class SEVSection:
    """One range of guest memory that the VMM prepares: ``kind`` is one of the constants above."""

    gpa: int
    size: int
    kind: int


@dataclass(frozen=True, slots=True)
class SEVFirmware:
    """What the launch digest takes from a firmware file.

    reset_eip:      where application processors start
    hash_table_gpa: where kernel hashes go; 0 where the firmware checks none
    """

    reset_eip: int
    hash_table_gpa: int
    sections: tuple[SEVSection, ...]


def sev_firmware(firmware: bytes) -> SEVFirmware:
    """Read SEV-SNP metadata; raises ``Malformed`` for firmware that SNP cannot start."""
    table = guid_table(firmware)
    found = sev_sections(firmware, table)
    if any(section.gpa + section.size > FOUR_GIB - len(firmware) for section in found):
        raise Malformed("firmware asks for memory that the firmware itself takes")
    hashes = table.get(SEV_HASH_TABLE, bytes(8))
    if len(hashes) != 8:
        raise Malformed("firmware's hash table entry is not of 8 bytes")
    return SEVFirmware(word(table, SEV_RESET_BLOCK, "reset block"), little(hashes[:4]), found)


def sev_sections(image: bytes, table: Mapping[uuid.UUID, bytes]) -> tuple[SEVSection, ...]:
    """Read the sections of an image with this GUID table, in file order."""
    start = len(image) - word(table, SEV_METADATA_OFFSET, "SEV metadata")
    if not 0 <= start <= len(image) - 16:
        raise Malformed(f"firmware has no SEV metadata: they would begin at {start} of {len(image)} bytes")
    header = _HEADER.read(image[start : start + 16])
    count = little(header["count"])
    if header["signature"] != b"ASEV" or little(header["version"]) != 1:
        raise Malformed("firmware has no SEV metadata of version 1")
    if not 1 <= count <= MAX_SECTIONS or little(header["length"]) != 16 + 12 * count:
        raise Malformed(f"SEV metadata with {count} sections says {little(header['length'])} bytes")
    found = []
    for index in range(count):
        at = start + 16 + 12 * index
        values = {name: little(value) for name, value in _SECTION.read(image[at : at + 12]).items()}
        found.append(SEVSection(**values))
    return require_sections(found)


def require_sections(found: Sequence[SEVSection]) -> tuple[SEVSection, ...]:
    """Refuse sections that are empty, not of whole pages, too large, of an unknown kind, or that overlap.

    A VMM refuses an empty section, too: firmware that only TDX starts has them.
    """
    for section in found:
        if section.kind not in _KINDS or not 0 < section.size <= MAX_SECTION:
            raise Malformed(f"SEV section at {section.gpa:#x} of kind {section.kind}, {section.size} bytes")
        if section.gpa % PAGE or section.size % PAGE:
            raise Malformed(f"SEV section at {section.gpa:#x} is not of whole pages")
    end = 0
    for section in sorted(found, key=lambda section: section.gpa):
        if section.gpa < end:
            raise Malformed(f"SEV sections overlap at {section.gpa:#x}")
        end = section.gpa + section.size
    return tuple(found)


@dataclass(frozen=True, slots=True)
class KernelHashes:
    """SHA-256 (32 bytes each) of what QEMU boots directly, as it lies in the files."""

    kernel: bytes
    initrd: bytes
    command_line: bytes

    @classmethod
    def of(cls, kernel: bytes, initrd: bytes, command_line: str) -> "KernelHashes":
        """Hash the files; no initrd is the empty one, and the command line ends in NUL."""
        line = command_line.encode() + b"\0"
        return cls(*(hashlib.sha256(data).digest() for data in (kernel, initrd, line)))

    def page(self, hash_table_gpa: int) -> bytes:
        """Write the page that QEMU adds at the firmware's hash table address."""
        rows = ((_COMMAND_LINE, self.command_line), (_INITRD, self.initrd), (_KERNEL, self.kernel))
        entries = b"".join(name.bytes_le + (50).to_bytes(2, "little") + digest for name, digest in rows)
        table = (_TABLE.bytes_le + (168).to_bytes(2, "little") + entries).ljust(176, b"\0")
        offset = hash_table_gpa % PAGE
        if offset + len(table) > PAGE:
            raise Malformed("firmware's hash table does not fit its page")
        return (bytes(offset) + table).ljust(PAGE, b"\0")
