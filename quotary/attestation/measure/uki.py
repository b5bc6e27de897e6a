"""Unified kernel images (UAPI group, "Unified Kernel Image"): their parts, as firmware and stub measure them.

Firmware measures the whole file as it starts it; systemd's stub then each section, its name and its
contents, in an order of its own (systemd 257, ``unified_sections``); firmware again the kernel in it as the
stub loads that; and Linux its command line and ramdisk. A section that this version does not know is refused:
the stub acts on some (it makes a ramdisk of ``.osrel``), and what is measured then is not known here.
"""

from collections.abc import Mapping

from quotary.attestation.measure.pe import named_sections
from quotary.errors import Malformed, Unsupported

LINUX, COMMAND_LINE, INITRD = ".linux", ".cmdline", ".initrd"
MEASURED = (LINUX, COMMAND_LINE, INITRD, ".uname", ".sbat")
"""Sections that the stub measures, in its order."""

_OF_STUB = (".text", ".rodata", ".data", ".sdmagic", ".reloc")
_REQUIRED = (LINUX, COMMAND_LINE, ".uname", ".sbat")


def parts(image: bytes) -> Mapping[str, bytes]:
    """Give the measured sections of a unified kernel image by name; only ``.initrd`` may be absent."""
    found = named_sections(image)
    unknown = sorted(found.keys() - {*MEASURED, *_OF_STUB})
    if unknown:
        raise Unsupported(f"a unified kernel image with a section {unknown[0]} is not measured")
    missing = [name for name in _REQUIRED if not found.get(name)]
    if missing:
        raise Malformed(f"a unified kernel image has no {missing[0]}")
    return {name: found[name] for name in MEASURED if name in found}


def command_line(sections: Mapping[str, bytes]) -> str:
    """Give the command line of an image's sections."""
    try:
        return sections[COMMAND_LINE].decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("the command line of a unified kernel image is not ASCII") from error
