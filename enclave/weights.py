"""Read a model into private memory and prove what was read: every byte is hashed while it is copied (design
section 7).

The digest comes from the measured command line. What is hashed is what is used: files are opened once,
copied, and never looked at again, so a host that swaps one afterwards changes nothing. A folder that holds
anything the manifest does not name is refused, because a loader that guesses would find it.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quotary.errors import CannotTell, Rejected
from quotary.manifest import MAX_MANIFEST, NAME, Manifest

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files in memory, by relative path, and the digest of the manifest that they agree
    with (32 bytes).
    """

    files: Mapping[str, bytes]
    digest: bytes


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest alone: enough to say which model this claims to be, before anything large is read."""
    return Manifest.parse(_read(folder / NAME, MAX_MANIFEST))


def read_weights(
    folder: Path, wanted: bytes, told: Callable[[int, int], None] = lambda done, of: None
) -> Weights:
    """Copy every file that the manifest names; ``wanted`` is the weights digest (32 bytes).

    told: hears how many bytes were read and hashed, and of how many
    Raises ``Rejected`` where digest, file, size or the set of files differs, ``CannotTell`` where a file
    cannot be read.
    """
    manifest = read_manifest(folder)
    if manifest.digest != wanted:
        raise Rejected("weights digest", manifest.digest.hex(), wanted.hex())
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not _is_folder(path)}
    if present != {*manifest.files, NAME}:
        odd = sorted(present ^ {*manifest.files, NAME})
        raise Rejected("weights files", f"{odd[0]} on one side only", "exactly the files of the manifest")
    files: dict[str, bytes] = {}
    total = sum(file.length for file in manifest.files.values())
    for path, file in manifest.files.items():
        before = sum(map(len, files.values()))
        content = _read(folder / path, file.length, partial(_add, told, before, total))
        found = hashlib.sha256(content).digest()
        if found != file.sha256:
            raise Rejected(f"weights file {path}", found.hex(), file.sha256.hex())
        files[path] = content
    return Weights(files, manifest.digest)


def _add(told: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    told(before + done, total)


def _is_folder(path: Path) -> bool:
    # A link to a folder is no folder: it shows up as a file that no manifest names.
    return stat.S_ISDIR(path.lstat().st_mode)


def _read(path: Path, limit: int, told: Callable[[int], None] = lambda done: None) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CannotTell(f"{path.name} of the model cannot be opened: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Rejected(f"weights file {path.name}", "not a regular file", "a regular file")
        content = bytearray()
        while chunk := file.read(min(_CHUNK, limit + 1 - len(content))):
            content += chunk
            told(len(content))
        if len(content) > limit:
            raise Rejected(f"weights file {path.name}", f"more than {limit} bytes", f"at most {limit} bytes")
        return bytes(content)
