"""The TD HOB: how the VMM tells firmware which memory there is (UEFI PI volume 3; TDVF Design Guide section
4.2).

Its digest is the first event of RTMR0 and depends on the TD's memory size and the firmware's sections alone,
as QEMU builds it. Sizes and addresses are in bytes.
"""

import struct
from collections.abc import Iterator, Sequence

from quotary.attestation.measure.tdvf import TD_HOB, TEMPORARY, Section
from quotary.errors import Malformed

GIB = 1 << 30
# QEMU q35: where memory below 4 GiB ends, and for how much memory that begins to hold.
LOW_MEMORY_SPLIT = 0xB0000000
LOW_MEMORY_LARGE = 0x80000000
MAX_MEMORY = 1 << 46

_ACCEPTED, _UNACCEPTED = 0, 7


def low_memory(memory: int) -> int:
    """Give the end of memory below 4 GiB for a machine with ``memory`` bytes."""
    return memory if memory < LOW_MEMORY_SPLIT else LOW_MEMORY_LARGE


def td_hob(memory: int, found: Sequence[Section]) -> bytes:
    """Write the HOBs that firmware with these sections gets and measures: all but the end of the list.

    Raises ``Malformed`` if memory and sections do not fit each other.
    """
    bases = [section.gpa for section in found if section.type == TD_HOB]
    if len(bases) != 1 or not 0 < memory <= MAX_MEMORY or memory % 4096:
        raise Malformed("a TD HOB needs whole pages of memory and firmware with one TD HOB section")
    resources = b"".join(
        struct.pack("<HHI16xIIQQ", 3, 48, 0, kind, 7, start, end - start)
        for kind, start, end in _ranges(memory, found)
    )
    end = bases[0] + 56 + len(resources) + 8
    return struct.pack("<HHIII32xQ", 1, 56, 0, 9, 0, end) + resources


def _ranges(memory: int, found: Sequence[Section]) -> Iterator[tuple[int, int, int]]:
    at, low = 0, low_memory(memory)
    taken = sorted(
        (section.gpa, section.gpa + section.memory)
        for section in found
        if section.type in (TD_HOB, TEMPORARY)
    )
    for start, end in taken:
        if end > low:
            raise Malformed(f"firmware needs memory up to {end:#x}, the machine has {low:#x}")
        if start > at:
            yield _UNACCEPTED, at, start
        yield _ACCEPTED, start, end
        at = end
    if low > at:
        yield _UNACCEPTED, at, low
    if memory > low:
        yield _UNACCEPTED, 4 * GIB, 4 * GIB + memory - low
