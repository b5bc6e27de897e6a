"""Firmware and a kernel that every platform could start, as far as anybody measures them; nobody runs them.

The firmware has the tables of OVMF: a variable store in front, the measured rest, SEV metadata with a place
for a kernel's hashes, TDVF metadata.
"""

import random
import struct
import uuid

from quotary.attestation.measure.guids import (
    FOOTER,
    SEV_HASH_TABLE,
    SEV_METADATA_OFFSET,
    SEV_RESET_BLOCK,
    TDVF_OFFSET,
)

PAGE = 4096
HASH_TABLE = 0x810C00
SEV_SECTIONS = (
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x810000, 0x1000, 0x10),
)


def firmware(pages: int = 4, variables: int = 1, seed: int = 0, hash_table: int = HASH_TABLE) -> bytes:
    """Make firmware of this many pages, ``variables`` of them for variables; a seed gives other code."""
    size, first = pages * PAGE, variables * PAGE
    sections = (
        (first, size - first, (1 << 32) - size + first, size - first, 0, 1),
        (0, first, (1 << 32) - size, first, 1, 0),
        (0, 0, 0x811000, 0xF000, 3, 0),
        (0, 0, 0x809000, 0x1000, 2, 0),
    )
    sev = _metadata(b"ASEV", [struct.pack("<III", *row) for row in SEV_SECTIONS])
    tdvf = _metadata(b"TDVF", [struct.pack("<IIQQII", *row) for row in sections])
    end = 32 + 5 * 18 + 4 + 4 + 4 + 8
    entries: tuple[tuple[uuid.UUID, bytes], ...] = (
        (SEV_METADATA_OFFSET, struct.pack("<I", end + len(sev))),
        (TDVF_OFFSET, struct.pack("<I", end + len(sev) + len(tdvf))),
        (SEV_HASH_TABLE, struct.pack("<II", hash_table, 0x400 if hash_table else 0)),
        (SEV_RESET_BLOCK, struct.pack("<I", 0x80B004)),
    )
    table = b"".join(data + struct.pack("<H", len(data) + 18) + name.bytes_le for name, data in entries)
    table += struct.pack("<H", len(table) + 18) + FOOTER.bytes_le
    code = random.Random(seed).randbytes(size - end - len(sev) - len(tdvf))
    return code + tdvf + sev + table + bytes(32)


def kernel(seed: int = 0, length: int = 4096) -> bytes:
    """Make a PE image with a Linux setup header and one section."""
    image = bytearray(0x400) + random.Random(seed).randbytes(length)
    image[:2] = b"MZ"
    struct.pack_into("<I", image, 0x3C, 0x40)
    struct.pack_into("<4sHHIIIHH", image, 0x40, b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x22E)
    optional = 0x40 + 24
    struct.pack_into("<H", image, optional, 0x20B)
    struct.pack_into("<I", image, optional + 60, 0x400)
    struct.pack_into("<I", image, optional + 108, 16)
    struct.pack_into("<II", image, optional + 240 + 16, length, 0x400)
    image[0x202:0x208] = b"HdrS" + struct.pack("<H", 0x20F)
    struct.pack_into("<H", image, 0x236, 0x7F)
    return bytes(image)


def unified(sections: dict[str, bytes], stub: bytes = b"stub") -> bytes:
    """Make a unified kernel image: a stub's code, then these sections, each padded to 512 bytes in the file."""
    given = {".text": stub, **sections}
    optional = 0x40 + 24
    headers = (optional + 240 + 40 * len(given) + 511) // 512 * 512
    image, rows, at = bytearray(optional + 240), b"", headers
    for name, data in given.items():
        room = (len(data) + 511) // 512 * 512
        rows += struct.pack("<8sIIIIIIHHI", name.encode(), len(data), at, room, at, 0, 0, 0, 0, 0)
        at += room
    image[:2] = b"MZ"
    struct.pack_into("<I", image, 0x3C, 0x40)
    struct.pack_into("<4sHHIIIHH", image, 0x40, b"PE\0\0", 0x8664, len(given), 0, 0, 0, 240, 0x22E)
    struct.pack_into("<H", image, optional, 0x20B)
    struct.pack_into("<I", image, optional + 60, headers)
    struct.pack_into("<I", image, optional + 108, 16)
    body = b"".join(data.ljust((len(data) + 511) // 512 * 512, b"\0") for data in given.values())
    return (bytes(image) + rows).ljust(headers, b"\0") + body


def _metadata(signature: bytes, rows: list[bytes]) -> bytes:
    data = b"".join(rows)
    return struct.pack("<4sIII", signature, 16 + len(data), 1, len(rows)) + data
