"""The first state of an SEV-SNP guest's processors, which the launch digest covers (AMD APM volume 2,
appendix B, VMSA layout).

A page of 4096 bytes, zero beside what is written here. What a VMM writes is the profile's data.
"""

import struct
from collections.abc import Iterable

from quotary.attestation.measure.profiles import SNPProfile, SVSMProfile

LENGTH = 4096

# Offset, selector, attributes, limit, base.
_Segment = tuple[int, int, int, int, int]


def real_mode(profile: SNPProfile, eip: int, signature: int, features: int, *, first: bool) -> bytes:
    """Write the state of a processor that starts in firmware, as after a reset."""
    code = profile.cs_attributes if first else profile.cs_attributes_ap
    segments = (
        (0x000, 0, 0x93, 0xFFFF, 0),  # es
        (0x010, 0xF000, code, 0xFFFF, eip & 0xFFFF0000),  # cs
        (0x020, 0, profile.ss_attributes, 0xFFFF, 0),
        (0x030, 0, 0x93, 0xFFFF, 0),  # ds
        (0x040, 0, 0x93, 0xFFFF, 0),  # fs
        *_system(profile.tr_attributes),
    )
    own = (
        (0x158, 0x10),  # cr0: ET
        (0x178, eip & 0xFFFF),  # rip
        (0x268, profile.g_pat),
        (0x310, signature if profile.rdx is None else profile.rdx),
        (0x3B0, features),
    )
    return _page(segments, own, profile.mxcsr, profile.x87_fcw)


def flat(profile: SVSMProfile, entry: int, signature: int) -> bytes:
    """Write the state of a processor that starts in an SVSM: 32-bit protected mode, all memory in reach."""
    data = [(offset, 16, 0xC93, 0xFFFFFFFF, 0) for offset in (0x000, 0x020, 0x030, 0x040)]  # es, ss, ds, fs
    segments = ((0x010, 8, 0xC9B, 0xFFFFFFFF, 0), *data, *_system(0x8B))
    own = (
        (0x158, 0x11),  # cr0: ET and PE
        (0x178, entry),  # rip
        (0x268, profile.g_pat),
        (0x310, signature),
        (0x3B0, profile.features),
    )
    return _page(segments, own, profile.mxcsr, profile.x87_fcw)


def _system(tr_attributes: int) -> tuple[_Segment, ...]:
    return (
        (0x050, 0, 0x93, 0xFFFF, 0),  # gs
        (0x060, 0, 0, 0xFFFF, 0),  # gdtr
        (0x070, 0, 0x82, 0xFFFF, 0),  # ldtr
        (0x080, 0, 0, 0xFFFF, 0),  # idtr
        (0x090, 0, tr_attributes, 0xFFFF, 0),
    )


def _page(segments: Iterable[_Segment], own: Iterable[tuple[int, int]], mxcsr: int, x87_fcw: int) -> bytes:
    page = bytearray(LENGTH)
    for offset, selector, attributes, limit, base in segments:
        struct.pack_into("<HHIQ", page, offset, selector, attributes, limit, base)
    same = (
        (0x0D0, 0x1000),  # efer: SVME
        (0x148, 0x40),  # cr4: MCE
        (0x160, 0x400),  # dr7
        (0x168, 0xFFFF0FF0),  # dr6
        (0x170, 0x2),  # rflags
        (0x3E8, 1),  # xcr0
    )
    for offset, value in (*same, *own):
        struct.pack_into("<Q", page, offset, value)
    struct.pack_into("<I", page, 0x408, mxcsr)
    struct.pack_into("<H", page, 0x410, x87_fcw)
    return bytes(page)
