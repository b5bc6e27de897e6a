"""Read Debian packages without Debian: ar(5) members, and the files in a package's data archive.

Enough to take one program out of one pinned package, which is how the first executable enters the store
(deb(5): ``debian-binary``, ``control.tar.*``, ``data.tar.*``; ar(5): 60-byte member headers, even offsets).
"""

import io
import lzma
import tarfile

from quotary.errors import Malformed, Unsupported

MAGIC = b"!<arch>\n"
HEADER_LENGTH = 60
MEMBER_END = b"`\n"
MAX_UNPACKED = 1 << 31


def ar_members(data: bytes) -> dict[str, bytes]:
    """Return an ar archive's members by name, in file order; duplicate names are refused."""
    if data[:8] != MAGIC:
        raise Malformed("not an ar archive")
    found: dict[str, bytes] = {}
    at = 8
    while at < len(data):
        header = data[at : at + HEADER_LENGTH]
        if len(header) != HEADER_LENGTH or header[58:] != MEMBER_END:
            raise Malformed(f"ar member header at byte {at} is broken")
        name, length = _name(header), _length(header, at)
        at += HEADER_LENGTH
        if at + length > len(data):
            raise Malformed(f"ar member {name} has {length} bytes, {len(data) - at} are left")
        if name in found:
            raise Malformed(f"ar member {name} occurs twice")
        found[name] = data[at : at + length]
        at += length + length % 2
    return found


def deb_file(deb: bytes, path: str) -> bytes:
    """Return one regular file of a package's data archive; ``path`` without a leading ``./``."""
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_tar(deb))) as archive:
            for member in archive:
                if member.name.removeprefix("./") == path and member.isreg():
                    opened = archive.extractfile(member)
                    assert opened is not None, "a regular member can be read"
                    return opened.read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise Malformed("the package's data archive is broken") from error
    raise Malformed(f"the package has no file {path}")


def _name(header: bytes) -> str:
    try:
        return header[:16].decode("ascii").rstrip().rstrip("/")
    except UnicodeDecodeError as error:
        raise Malformed("ar member name is not ASCII") from error


def _length(header: bytes, at: int) -> int:
    text = header[48:58].rstrip(b" ")
    if not text.isdigit():
        raise Malformed(f"ar member at byte {at} has no length")
    return int(text)


def _data_tar(deb: bytes) -> bytes:
    members = ar_members(deb)
    if members.get("debian-binary", b"").rstrip() != b"2.0":
        raise Malformed("not a Debian package of format 2.0")
    if "data.tar" in members:
        return members["data.tar"]
    if "data.tar.xz" not in members:
        raise Unsupported("only xz-compressed Debian packages can be read")
    unpacker = lzma.LZMADecompressor(memlimit=256 << 20)
    try:
        return unpacker.decompress(members["data.tar.xz"], MAX_UNPACKED)
    except (lzma.LZMAError, MemoryError) as error:
        raise Malformed("the package's data archive does not decompress") from error
