"""What firmware measures as the kernel when QEMU boots one directly (``-kernel``).

QEMU fills in the kernel's setup header before the guest sees it (Linux x86 boot protocol); firmware up to
edk2 2025.02 measures that patched image, later firmware the file as it is. Addresses are QEMU's for q35.
"""

import struct

from quotary.attestation.measure.hob import low_memory
from quotary.errors import Malformed

RULES = ("raw", "qemu-patched")

_MAGIC = b"HdrS"
_PROTOCOL_NEEDED = 0x20C
_ABOVE_4G = 1 << 1  # XLF_CAN_BE_LOADED_ABOVE_4G
_REAL_MODE, _COMMAND_LINE = 0x10000, 0x20000
_ACPI_DATA = 0x28000


def measured_kernel(kernel: bytes, initrd_length: int | None, memory: int, rule: str) -> bytes:
    """Give the image that is measured; ``memory`` and ``initrd_length`` in bytes, None for no initrd."""
    if rule not in RULES:
        raise Malformed(f"no kernel rule {rule!r}: {' or '.join(RULES)}")
    return kernel if rule == "raw" else _patched(kernel, initrd_length, memory)


def _patched(kernel: bytes, initrd_length: int | None, memory: int) -> bytes:
    if len(kernel) < 0x250 or kernel[0x202:0x206] != _MAGIC:
        raise Malformed("kernel has no Linux setup header")
    (protocol,) = struct.unpack_from("<H", kernel, 0x206)
    if protocol < _PROTOCOL_NEEDED:
        raise Malformed(f"kernel speaks boot protocol {protocol:#x}, {_PROTOCOL_NEEDED:#x} is needed")
    image = bytearray(kernel)
    image[0x210] = 0xB0  # type_of_loader: QEMU
    image[0x211] |= 0x80  # loadflags: heap in use
    struct.pack_into("<H", image, 0x224, _COMMAND_LINE - _REAL_MODE - 0x200)  # heap_end_ptr
    struct.pack_into("<I", image, 0x228, _COMMAND_LINE)  # cmd_line_ptr
    if initrd_length is not None:
        address = _initrd_address(kernel, initrd_length, memory)
        struct.pack_into("<II", image, 0x218, address, initrd_length)  # ramdisk_image, ramdisk_size
    return bytes(image)


def _initrd_address(kernel: bytes, length: int, memory: int) -> int:
    (flags,) = struct.unpack_from("<H", kernel, 0x236)
    highest = 0xFFFFFFFF if flags & _ABOVE_4G else struct.unpack_from("<I", kernel, 0x22C)[0]
    highest = min(highest, low_memory(memory) - _ACPI_DATA - 1)
    if not 0 < length <= highest:
        raise Malformed(f"initrd of {length} bytes does not fit below {highest:#x}")
    return int(highest - length) & ~0xFFF
