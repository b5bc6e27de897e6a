"""Where Nix keeps content: archive hashes and the store paths that follow from them, computed without Nix.

A fixed-output path depends on name and hash only (Nix manual, "Store path specification"), so what a lock
demands can be looked up before anything is downloaded, and a seed's hash can be written into a lock on a
machine that has no Nix.
"""

import hashlib
import re
from pathlib import Path

from quotary.errors import Malformed

STORE = "/nix/store"
ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

_UNSAFE = re.compile(r"[^A-Za-z0-9+._?=-]")


def safe_name(text: str) -> str:
    """Return the store's spelling of a file name: what it does not allow becomes ``-``."""
    return _UNSAFE.sub("-", text)


def flat_path(name: str, sha256: str) -> str:
    """Return the path of one file of the given SHA-256 (hex), as ``--add-fixed sha256`` makes it."""
    inner = hashlib.sha256(f"fixed:out:sha256:{sha256}:".encode()).hexdigest()
    return _path("output:out", inner, name)


def tree_path(name: str, nar_sha256: str) -> str:
    """Return the path of a tree whose archive has the given SHA-256 (hex), as ``--recursive`` makes it."""
    return _path("source", nar_sha256, name)


def nar_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's or folder's Nix archive."""
    digest = hashlib.sha256()
    _write(digest, b"nix-archive-1")
    _node(digest, path)
    return digest.hexdigest()


def base32(data: bytes) -> str:
    """Write bytes in Nix's base 32: five bits a digit, last digit first."""
    count = (len(data) * 8 + 4) // 5
    number = int.from_bytes(data, "little")
    return "".join(ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(count)))


def unbase32(text: str, length: int) -> bytes:
    """Read so many bytes in Nix's base 32; writing them again must give the same text."""
    number = 0
    for digit in text:
        place = ALPHABET.find(digit)
        if place < 0:
            raise Malformed(f"{digit!r} is no digit of Nix's base 32")
        number = number * 32 + place
    if number >> (8 * length):
        raise Malformed(f"a hash of Nix has more than {length} bytes")
    found = number.to_bytes(length, "little")
    if base32(found) != text:
        raise Malformed(f"a hash of Nix has not the digits of {length} bytes")
    return found


def _path(kind: str, inner: str, name: str) -> str:
    whole = hashlib.sha256(f"{kind}:sha256:{inner}:{STORE}:{name}".encode()).digest()
    folded = bytearray(20)
    for place, byte in enumerate(whole):
        folded[place % 20] ^= byte
    return f"{STORE}/{base32(bytes(folded))}-{name}"


def _node(digest: "hashlib._Hash", path: Path) -> None:
    _write(digest, b"(", b"type")
    if path.is_symlink():
        _write(digest, b"symlink", b"target", str(path.readlink()).encode())
    elif path.is_dir():
        _write(digest, b"directory")
        for child in sorted(path.iterdir(), key=lambda entry: entry.name.encode()):
            _write(digest, b"entry", b"(", b"name", child.name.encode(), b"node")
            _node(digest, child)
            _write(digest, b")")
    else:
        _write(digest, b"regular", *((b"executable", b"") if path.stat().st_mode & 0o100 else ()))
        _write(digest, b"contents", path.read_bytes())
    _write(digest, b")")


def _write(digest: "hashlib._Hash", *strings: bytes) -> None:
    for text in strings:
        digest.update(len(text).to_bytes(8, "little") + text + bytes(-len(text) % 8))
