"""The weights manifest: which files a model is, so that one digest names all of them
(docs/formats/weights.md).

Text, one line a file: 64 hex digits of SHA-256, two spaces, the size in bytes, two spaces, the path; sorted
by path, each line ends in a line feed. The weights digest is SHA-256 over these bytes; it stands in the
release, in the measured command line and in every receipt. Tokenizer, configuration and chat template are
files like the weights: changing one changes the digest.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from quotary.errors import Malformed

NAME = "MANIFEST"
MAX_MANIFEST = 1 << 20

_LINE = re.compile(
    r"([0-9a-f]{64})  (0|[1-9][0-9]{0,15})  ((?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*)"
)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: SHA-256 (32 bytes) over its content, and its size in bytes."""

    sha256: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a model by relative path; no path begins with a dot or leaves its folder."""

    files: Mapping[str, ManifestFile]

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        if len(data) > MAX_MANIFEST:
            raise Malformed(f"manifest has {len(data)} bytes, at most {MAX_MANIFEST} are allowed")
        files = {}
        for line in data.decode("ascii", "replace").removesuffix("\n").split("\n"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise Malformed("a manifest line is not sha256, size and path")
            files[match[3]] = ManifestFile(bytes.fromhex(match[1]), int(match[2]))
        found = cls(files)
        # Writing it again refuses a second order, a doubled path and a missing line feed.
        if found.encode() != data:
            raise Malformed("manifest is not in its canonical form")
        return found

    def encode(self) -> bytes:
        lines = (f"{file.sha256.hex()}  {file.length}  {path}\n" for path, file in sorted(self.files.items()))
        return "".join(lines).encode("ascii")

    @property
    def digest(self) -> bytes:
        """The weights digest (32 bytes)."""
        return hashlib.sha256(self.encode()).digest()
