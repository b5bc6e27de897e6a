"""The ACPI blobs that QEMU hands to firmware: loader script and RSDP follow from the tables (QEMU,
``hw/acpi/bios-linker-loader.c`` and ``aml-build.c``; ACPI 6.5, section 5.2).

RTMR0 has a digest of each of the three. Whoever has the tables of a machine, as they lie in
``etc/acpi/tables``, needs nothing more. Only q35's layout is known: FACS, DSDT, FACP, others, RSDT last.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quotary.errors import Malformed

MAX_TABLES = 1 << 20
LOADER_LENGTH = 4096

_RSDP, _TABLES = b"etc/acpi/rsdp", b"etc/acpi/tables"
_ALLOCATE, _POINTER, _CHECKSUM = 1, 2, 3
_HIGH, _SEGMENT_F = 1, 2
_CHECKSUM_AT, _ENTRIES_AT = 9, 36
# Fields of the FACP that point elsewhere: offset and length of FACS, DSDT, and DSDT again in 64 bits.
_FACP_POINTERS = ((36, 4), (40, 4), (140, 8))
_RSDP_POINTER, _RSDP_CHECKSUM = 16, 8
_OEM = b"BOCHS "


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the blob: where it begins, and its length."""

    name: bytes
    start: int
    length: int


def derive(tables: bytes) -> Mapping[str, bytes]:
    """Give the three blobs by their events' names; raises ``Malformed`` for tables of another layout."""
    found = tuple(_walk(tables))
    names = [one.name for one in found]
    if names[:3] != [b"FACS", b"DSDT", b"FACP"] or names[-1] != b"RSDT" or names.count(b"RSDT") != 1:
        raise Malformed("ACPI tables are not FACS, DSDT, FACP, others and RSDT, as QEMU's q35 writes them")
    rsdt = found[-1]
    if rsdt.length != _ENTRIES_AT + 4 * (len(found) - 3):
        raise Malformed(f"RSDT has {rsdt.length} bytes, {len(found) - 3} tables want another length")
    rsdp = b"RSD PTR \0" + _OEM + b"\0" + rsdt.start.to_bytes(4, "little")
    script = b"".join(_script(found, len(rsdp)))
    if len(script) > LOADER_LENGTH:
        raise Malformed(f"ACPI loader of {len(script)} bytes, at most {LOADER_LENGTH} are known")
    return {"acpi-loader": script.ljust(LOADER_LENGTH, b"\0"), "acpi-rsdp": rsdp, "acpi-tables": tables}


def _walk(tables: bytes) -> Iterator[Table]:
    if len(tables) > MAX_TABLES:
        raise Malformed(f"ACPI tables have {len(tables)} bytes, at most {MAX_TABLES} are allowed")
    at = 0
    while at + 8 <= len(tables) and any(tables[at : at + 4]):
        name, length = struct.unpack_from("<4sI", tables, at)
        if length < _ENTRIES_AT or at + length > len(tables):
            raise Malformed(f"ACPI table at {at:#x} says {length} bytes")
        yield Table(name, at, length)
        at += length
    if any(tables[at:]):
        raise Malformed("ACPI tables go on behind their end")


def _script(found: tuple[Table, ...], rsdp_length: int) -> Iterator[bytes]:
    _, dsdt, facp, *others, rsdt = found
    yield _command(_ALLOCATE, struct.pack("<56sIB", _RSDP, 16, _SEGMENT_F))
    yield _command(_ALLOCATE, struct.pack("<56sIB", _TABLES, 64, _HIGH))
    yield _checksum(dsdt)
    yield from (_pointer(_TABLES, facp.start + offset, size) for offset, size in _FACP_POINTERS)
    yield from (_checksum(table) for table in (facp, *others))
    count = (rsdt.length - _ENTRIES_AT) // 4
    yield from (_pointer(_TABLES, rsdt.start + _ENTRIES_AT + 4 * slot, 4) for slot in range(count))
    yield _checksum(rsdt)
    yield _pointer(_RSDP, _RSDP_POINTER, 4)
    yield _command(_CHECKSUM, struct.pack("<56sIII", _RSDP, _RSDP_CHECKSUM, 0, rsdp_length))


def _checksum(table: Table) -> bytes:
    place = (table.start + _CHECKSUM_AT, table.start, table.length)
    return _command(_CHECKSUM, struct.pack("<56sIII", _TABLES, *place))


def _pointer(into: bytes, offset: int, size: int) -> bytes:
    return _command(_POINTER, struct.pack("<56s56sIB", into, _TABLES, offset, size))


def _command(number: int, body: bytes) -> bytes:
    return (struct.pack("<I", number) + body).ljust(128, b"\0")
