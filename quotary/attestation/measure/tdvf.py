"""TDX firmware: its section table, and MRTD, the measurement of what the VMM adds to a TD before it runs.

Intel TDX Virtual Firmware Design Guide, section 11 (metadata) and Intel TDX Module ABI, TDH.MEM.PAGE.ADD and
TDH.MR.EXTEND. MRTD is one running SHA-384 over 128-byte records, so the order of pages matters, and VMMs
differ.
"""

import hashlib
from dataclasses import dataclass

from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.measure.guids import TDVF_OFFSET, guid_table, word
from quotary.attestation.measure.trace import Step
from quotary.errors import Malformed

PAGE = 4096
CHUNK = 256
BFV, CFV, TD_HOB, TEMPORARY = 0, 1, 2, 3
MAX_SECTIONS = 64
MAX_TYPE = 8
MEASURED, AUGMENTED = 1, 2
# A VMM adds memory page by page; firmware that asks for more than this is not firmware.
MAX_ADDED = 1 << 30
ORDERS = ("single-pass", "two-pass")

_HEADER = Layout(
    "TDVF header", 16, fields(("signature", 0, 4), ("length", 4, 4), ("version", 8, 4), ("count", 12, 4))
)
_SECTION = Layout(
    "TDVF section",
    32,
    fields(
        ("offset", 0, 4),
        ("raw", 4, 4),
        ("gpa", 8, 8),
        ("memory", 16, 8),
        ("type", 24, 4),
        ("attributes", 28, 4),
    ),
)


_EXTEND, _REST = b"MR.EXTEND".ljust(16, b"\0"), bytes(104)


@dataclass(frozen=True, slots=True)
class Section:
    """One section: ``raw`` bytes at ``offset`` of the file, ``memory`` bytes at ``gpa`` of the guest."""

    offset: int
    raw: int
    gpa: int
    memory: int
    type: int
    attributes: int


def sections(firmware: bytes) -> tuple[Section, ...]:
    """Read the sections in file order; raises ``Malformed`` for a table that no VMM may follow."""
    table = guid_table(firmware)
    # Without a table it is td-shim: the absolute offset stands 32 bytes before the end.
    behind = word(table, TDVF_OFFSET, "TDVF metadata") if table else 0
    start = len(firmware) - behind if table else little(firmware[-32:-28])
    if not 0 <= start <= len(firmware) - 16:
        raise Malformed(
            f"firmware has no TDVF metadata: they would begin at {start} of {len(firmware)} bytes"
        )
    header = _HEADER.read(firmware[start : start + 16])
    count = little(header["count"])
    if header["signature"] != b"TDVF" or little(header["version"]) != 1:
        raise Malformed("firmware has no TDVF metadata of version 1")
    if not 1 <= count <= MAX_SECTIONS or little(header["length"]) != 16 + 32 * count:
        raise Malformed(f"TDVF metadata with {count} sections says {little(header['length'])} bytes")
    found = [_section(firmware, start + 16 + 32 * index) for index in range(count)]
    _require_sound(found)
    return tuple(found)


def mrtd(firmware: bytes, order: str) -> tuple[bytes, tuple[Step, ...]]:
    """Compute MRTD (48 bytes) with its steps; ``order`` is one of ``ORDERS``.

    ``single-pass`` adds and extends page by page, ``two-pass`` adds a whole section before it extends it.
    """
    if order not in ORDERS:
        raise Malformed(f"no page order {order!r}: {' or '.join(ORDERS)}")
    state, steps = hashlib.sha384(), []
    for section in sections(firmware):
        if section.attributes & AUGMENTED:
            continue
        data = firmware[section.offset : section.offset + section.raw]
        data = data.ljust(section.memory, b"\0")
        pages = range(0, section.memory, PAGE)
        if order == "two-pass":
            for page in pages:
                state.update(_added(section.gpa + page))
        for page in pages:
            if order == "single-pass":
                state.update(_added(section.gpa + page))
            if section.attributes & MEASURED:
                content = data[page : page + PAGE]
                state.update(_extended(section.gpa + page, content))
                digest = hashlib.sha384(content).digest()
                steps.append(Step("mrtd", f"page {section.gpa + page:#x}", digest, state.digest()))
        if not section.attributes & MEASURED:
            digest = hashlib.sha384(f"{section.gpa:#x}+{section.memory:#x}".encode()).digest()
            steps.append(Step("mrtd", f"unmeasured memory {section.gpa:#x}", digest, state.digest()))
    return state.digest(), tuple(steps)


def configuration_volume(firmware: bytes) -> bytes:
    """Give the bytes of the one CFV section: the firmware's variable store as shipped."""
    found = [section for section in sections(firmware) if section.type == CFV]
    if len(found) != 1:
        raise Malformed(f"firmware has {len(found)} configuration volumes, one is needed")
    return firmware[found[0].offset : found[0].offset + found[0].raw]


def _section(firmware: bytes, at: int) -> Section:
    values = {name: little(value) for name, value in _SECTION.read(firmware[at : at + 32]).items()}
    found = Section(**values)
    if any(value % PAGE for value in (found.gpa, found.memory)) or not found.memory:
        raise Malformed(f"TDVF section at {found.gpa:#x} is not of whole pages")
    if found.raw > found.memory or found.offset + found.raw > len(firmware):
        raise Malformed(f"TDVF section at {found.gpa:#x} has more data than memory or file")
    if found.attributes & MEASURED and found.raw != found.memory:
        raise Malformed(f"measured TDVF section at {found.gpa:#x} has {found.raw} of {found.memory} bytes")
    if found.type > MAX_TYPE or found.attributes & ~(MEASURED | AUGMENTED):
        raise Malformed(f"TDVF section of type {found.type}, attributes {found.attributes:#x} is not known")
    return found


def _require_sound(found: list[Section]) -> None:
    if sum(section.type == TD_HOB for section in found) > 1:
        raise Malformed("firmware has two TD HOB sections")
    if sum(section.memory for section in found if not section.attributes & AUGMENTED) > MAX_ADDED:
        raise Malformed(f"firmware adds more than {MAX_ADDED} bytes")
    end = 0
    for section in sorted(found, key=lambda section: section.gpa):
        if section.gpa < end:
            raise Malformed(f"TDVF sections overlap at {section.gpa:#x}")
        end = section.gpa + section.memory


def _added(gpa: int) -> bytes:
    return (b"MEM.PAGE.ADD".ljust(16, b"\0") + gpa.to_bytes(8, "little")).ljust(128, b"\0")


def _extended(gpa: int, page: bytes) -> bytes:
    # One record for each chunk, all of a page at once: the loop is what MRTD costs.
    parts: list[bytes] = []
    for chunk in range(0, PAGE, CHUNK):
        parts += (_EXTEND, (gpa + chunk).to_bytes(8, "little"), _REST, page[chunk : chunk + CHUNK])
    return b"".join(parts)
