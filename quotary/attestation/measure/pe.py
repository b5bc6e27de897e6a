"""Authenticode: the hash of a PE image without the parts that a signature changes (Windows Authenticode,
"PE").

Firmware measures what it starts by this hash; with SHA-384 in TDX. The image is hashed as it lies in the
file.
"""

import hashlib
import struct

from quotary.errors import Malformed

MAX_IMAGE = 1 << 30
_MAX_SECTIONS = 96


def authenticode(image: bytes) -> bytes:
    """Hash a PE image (48 bytes): headers without what a signature changes, sections, data behind them."""
    if len(image) > MAX_IMAGE:
        raise Malformed(f"image has {len(image)} bytes, at most {MAX_IMAGE} are allowed")
    try:
        return _authenticode(image)
    except struct.error as error:
        raise Malformed("PE image ends inside its headers") from error


def named_sections(image: bytes) -> dict[str, bytes]:
    """Give the contents of a PE image's sections by name, without padding; no name may be there twice."""
    try:
        start = struct.unpack_from("<I", image, 0x3C)[0]
        signature, _, count, _, _, _, length, _ = struct.unpack_from("<4sHHIIIHH", image, start)
        if image[:2] != b"MZ" or signature != b"PE\0\0" or count > _MAX_SECTIONS:
            raise Malformed("not a PE image")
        table = [struct.unpack_from("<8sIIII", image, start + 24 + length + 40 * n) for n in range(count)]
    except struct.error as error:
        raise Malformed("PE image ends inside its headers") from error
    found: dict[str, bytes] = {}
    for raw, used, _, size, offset in table:
        name = raw.rstrip(b"\0").decode("latin-1")
        if name in found or used > size or offset + size > len(image):
            raise Malformed(f"PE section {name!r} is there twice or does not fit")
        found[name] = image[offset : offset + used]
    return found


def _authenticode(data: bytes) -> bytes:
    image = memoryview(data)
    if data[:2] != b"MZ":
        raise Malformed("not a PE image: no MZ")
    (start,) = struct.unpack_from("<I", image, 0x3C)
    signature, _, count, _, _, _, optional_length, _ = struct.unpack_from("<4sHHIIIHH", image, start)
    optional = start + 24
    (magic,) = struct.unpack_from("<H", image, optional)
    if signature != b"PE\0\0" or magic not in (0x10B, 0x20B) or count > _MAX_SECTIONS:
        raise Malformed("not a PE32 or PE32+ image")
    directories = optional + (96 if magic == 0x10B else 112)
    headers, checksum = struct.unpack_from("<I", image, optional + 60)[0], optional + 64
    (number,) = struct.unpack_from("<I", image, directories - 4)
    state = hashlib.sha384(image[:checksum])
    security, length = directories + 32, 0
    if number > 4:
        _, length = struct.unpack_from("<II", image, security)
        state.update(image[checksum + 4 : security])
        state.update(image[security + 8 : headers])
    else:
        state.update(image[checksum + 4 : headers])
    if headers > len(image) or headers < optional + optional_length + 40 * count:
        raise Malformed("PE image's headers do not fit")
    hashed = headers
    for offset, size in _sections(image, optional + optional_length, count):
        if offset + size > len(image):
            raise Malformed("PE image ends inside a section")
        state.update(image[offset : offset + size])
        hashed += size
    if hashed + length > len(image):
        raise Malformed("PE image's certificate table does not fit")
    state.update(image[hashed : len(image) - length])
    return state.digest()


def _sections(image: memoryview, table: int, count: int) -> list[tuple[int, int]]:
    found = []
    for index in range(count):
        size, offset = struct.unpack_from("<II", image, table + 40 * index + 16)
        if size:
            found.append((offset, size))
    return sorted(found)
