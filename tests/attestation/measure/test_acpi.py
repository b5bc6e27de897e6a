"""QEMU's loader script and RSDP out of its tables: published digests of real ones, and tables of another layout."""

import gzip
import hashlib
import json
import struct
from pathlib import Path

import pytest

from quotary.attestation.measure.acpi import LOADER_LENGTH, derive
from quotary.errors import Malformed

NAMES = (b"FACS", b"DSDT", b"FACP", b"APIC", b"RSDT")


def tables(names: tuple[bytes, ...] = NAMES, rsdt: int | None = None) -> bytes:
    """Tables of these names, each of 200 bytes, the RSDT as long as it must be; then padding."""
    found = b""
    for name in names:
        length = 200 if name != b"RSDT" else 36 + 4 * (len(names) - 3) if rsdt is None else rsdt
        found += (name + struct.pack("<I", length)).ljust(length, b"\1")
    return found + bytes(64)


def launched(vectors: Path, vector: dict) -> bytes:
    """The blob of a machine with this much memory, as the vectors describe it."""
    blob = bytearray(gzip.decompress((vectors / "measure" / "tdx" / vector["file"]).read_bytes()))
    (length,) = struct.unpack_from("<I", blob, blob.index(b"DSDT") + 4)
    ram = vector["ram_mib"] << 20
    base, size = (ram, 0xE0000000 - ram) if ram < 2816 << 20 else (0x80000000, 0x60000000)
    struct.pack_into("<I", blob, length - 684, size)
    struct.pack_into("<I", blob, length - 696, base)
    return bytes(blob)


def test_every_published_digest_follows_from_the_tables(vectors: Path) -> None:
    found = json.loads((vectors / "measure" / "tdx" / "acpi-oasis.json").read_text())["vectors"]
    checked = 0
    for vector in found:
        blobs = derive(launched(vectors, vector))
        for name in {"loader", "rsdp", "tables"} & vector.keys():
            assert hashlib.sha384(blobs[f"acpi-{name}"]).hexdigest() == vector[name], (vector["file"], name)
            checked += 1
    assert checked == 7


def test_every_byte_of_the_tables_is_in_their_digest_and_their_places_are_in_the_script() -> None:
    before = derive(tables())
    moved = derive(tables((*NAMES[:4], b"MCFG", b"RSDT")))
    assert len(before["acpi-loader"]) == LOADER_LENGTH
    assert {name for name in before if before[name] != moved[name]} == set(before)
    other = bytearray(tables())
    other[100] ^= 1
    changed = derive(bytes(other))
    assert {name for name in before if before[name] != changed[name]} == {"acpi-tables"}


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        bytes(64),
        tables((b"DSDT", b"FACS", b"FACP", b"RSDT")),
        tables((*NAMES, b"APIC")),
        tables((b"FACS", b"DSDT", b"FACP", b"RSDT", b"RSDT")),
        tables(rsdt=36),
        tables(rsdt=40),
        tables()[:-70],
        tables()[:-1] + b"\1",
        tables((*NAMES[:3], *(f"T{number:03}".encode() for number in range(40)), b"RSDT")),
        b"FACS" + bytes(60),
        bytes((1 << 20) + 1),
    ],
)
def test_tables_of_another_layout_are_malformed(blob: bytes) -> None:
    with pytest.raises(Malformed):
        derive(blob)
