"""Enclave Image Format, version 4: the file that a Nitro hypervisor starts.

aws-nitro-enclaves-image-format, "EIF format". Everything is big endian. The header's CRC-32 covers the header
before itself and all that follows; sections stand in one order, without gaps: kernel, command line,
metadata, ramdisks, signature. Only kernel, command line and ramdisks are measured, and their **boundaries are
not**: this reader takes a file only if writing what it read gives the same bytes again.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from quotary.attestation.layout import Layout, fields
from quotary.errors import Malformed

KERNEL, COMMAND_LINE, RAMDISK, SIGNATURE, METADATA = 1, 2, 3, 4, 5
MAX_EIF = 4 << 30
MAX_SECTIONS = 32
MAX_COMMAND_LINE = 4096
MAX_METADATA = 1 << 20
MAX_SIGNATURE = 32 * 1024
DEFAULT_MEMORY, DEFAULT_CPUS = 1 << 30, 2

_KINDS = {KERNEL, COMMAND_LINE, RAMDISK, SIGNATURE, METADATA}
_MAGIC, _VERSION = b".eif", 4
_ARM64 = 1
_HEADER = Layout(
    "EIF header",
    548,
    fields(
        ("magic", 0, 4),
        ("version", 4, 2),
        ("flags", 6, 2),
        ("memory", 8, 8),
        ("cpus", 16, 8),
        ("reserved", 24, 2),
        ("count", 26, 2),
        ("offsets", 28, 256),
        ("sizes", 284, 256),
        ("reserved unused", 540, 4),
        ("crc32", 544, 4),
    ),
)
_SECTION = Layout("EIF section", 12, fields(("type", 0, 2), ("flags", 2, 2), ("size", 4, 8)))


@dataclass(frozen=True, slots=True)
class EIF:
    """An enclave image.

    command_line: printable ASCII, without a final NUL
    ramdisks:     at least one; the kernel unpacks them one after the other
    metadata:     JSON for people, or None; not measured
    signature:    CBOR by the image's signer, or None; not measured, PCR8 is of its certificate
    memory, cpus: what ``run-enclave`` takes when nobody says; bytes and a count, not measured
    """

    kernel: bytes
    command_line: str
    ramdisks: tuple[bytes, ...]
    metadata: bytes | None = None
    signature: bytes | None = None
    memory: int = DEFAULT_MEMORY
    cpus: int = DEFAULT_CPUS
    arm64: bool = False

    @classmethod
    def parse(cls, data: bytes) -> "EIF":
        """Read a whole file; raises ``Malformed`` for anything that ``encode`` would not have written."""
        if len(data) > MAX_EIF:
            raise Malformed(f"EIF has {len(data)} bytes, at most {MAX_EIF} are allowed")
        header = {name: int.from_bytes(value, "big") for name, value in _HEADER.read(data[:548]).items()}
        if data[:4] != _MAGIC or header["version"] != _VERSION:
            raise Malformed(f"not an EIF of version {_VERSION}")
        if header["flags"] & ~_ARM64 or not 1 <= header["count"] <= MAX_SECTIONS:
            raise Malformed(f"EIF with flags {header['flags']:#x} and {header['count']} sections")
        if zlib.crc32(data[548:], zlib.crc32(data[:544])) != header["crc32"]:
            raise Malformed("EIF's CRC-32 is not that of its bytes")
        found = _image(list(_sections(data, header["count"])), header)
        if found.encode() != data:
            raise Malformed("EIF's sections are not in order or its table of them is not true")
        return found

    def encode(self) -> bytes:
        """Write the file, byte for byte as AWS's own builder does."""
        self._require_sound()
        offsets, at, body = [], _HEADER.length, []
        for kind, content in self._parts():
            offsets.append((at, len(content)))
            body.append(kind.to_bytes(2, "big") + bytes(2) + len(content).to_bytes(8, "big"))
            body.append(content)
            at += _SECTION.length + len(content)
        if at > MAX_EIF or len(offsets) > MAX_SECTIONS:
            raise Malformed(f"EIF of {len(offsets)} sections and {at} bytes: more than 32, or {MAX_EIF}")
        head = self._header(offsets)
        checksum = zlib.crc32(head[:544])
        for part in body:
            checksum = zlib.crc32(part, checksum)
        return b"".join([head[:544], checksum.to_bytes(4, "big"), *body])

    def _parts(self) -> Iterator[tuple[int, bytes]]:
        yield KERNEL, self.kernel
        yield COMMAND_LINE, self.command_line.encode()
        if self.metadata is not None:
            yield METADATA, self.metadata
        for ramdisk in self.ramdisks:
            yield RAMDISK, ramdisk
        if self.signature is not None:
            yield SIGNATURE, self.signature

    def _header(self, table: list[tuple[int, int]]) -> bytes:
        columns = [b"".join(row[index].to_bytes(8, "big") for row in table) for index in (0, 1)]
        return _HEADER.write(
            {
                "magic": _MAGIC,
                "version": _VERSION.to_bytes(2, "big"),
                "flags": (_ARM64 if self.arm64 else 0).to_bytes(2, "big"),
                "memory": self.memory.to_bytes(8, "big"),
                "cpus": self.cpus.to_bytes(8, "big"),
                "count": len(table).to_bytes(2, "big"),
                "offsets": columns[0].ljust(256, b"\0"),
                "sizes": columns[1].ljust(256, b"\0"),
                "crc32": bytes(4),
            }
        )

    def _require_sound(self) -> None:
        line = self.command_line
        if not (line.isascii() and line.isprintable()) or len(line) > MAX_COMMAND_LINE:
            raise Malformed(f"an EIF's command line is of at most {MAX_COMMAND_LINE} printable characters")
        if not self.kernel or not self.ramdisks:
            raise Malformed("an EIF needs a kernel and a ramdisk")
        if len(self.metadata or b"") > MAX_METADATA or len(self.signature or b"") > MAX_SIGNATURE:
            raise Malformed("an EIF's metadata or signature is too long")
        if len(self.ramdisks) > MAX_SECTIONS - 2:
            raise Malformed(f"an EIF has at most {MAX_SECTIONS} sections")
        if not (0 <= self.memory < 1 << 64 and 0 <= self.cpus < 1 << 64):
            raise Malformed("an EIF's memory and CPUs are unsigned numbers of 64 bits")


def _sections(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    # The sections are walked; the header's table is compared afterwards, when they are written again.
    at = _HEADER.length
    for _ in range(count):
        section = _SECTION.read(data[at : at + _SECTION.length])
        size = int.from_bytes(section["size"], "big")
        at += _SECTION.length
        if size > len(data) - at:
            raise Malformed(f"EIF ends inside a section of {size} bytes")
        yield int.from_bytes(section["type"], "big"), data[at : at + size]
        at += size


def _image(sections: list[tuple[int, bytes]], header: dict[str, int]) -> EIF:
    kinds = [kind for kind, _ in sections]
    for kind, what, needed in (
        (KERNEL, "kernel", 1),
        (COMMAND_LINE, "command line", 1),
        (METADATA, "metadata", 0),
        (SIGNATURE, "signature", 0),
    ):
        if not needed <= kinds.count(kind) <= 1:
            raise Malformed(f"EIF has {kinds.count(kind)} sections of {what}")
    if set(kinds) - _KINDS:
        raise Malformed(f"EIF has a section of the unknown type {max(set(kinds) - _KINDS)}")
    one = dict(sections)
    try:
        line = one[COMMAND_LINE].decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("EIF's command line is not ASCII") from error
    return EIF(
        kernel=one[KERNEL],
        command_line=line,
        ramdisks=tuple(content for kind, content in sections if kind == RAMDISK),
        metadata=one.get(METADATA),
        signature=one.get(SIGNATURE),
        memory=header["memory"],
        cpus=header["cpus"],
        arm64=bool(header["flags"]),
    )
