"""Small files with secrets: read only where nobody but their owner may."""

import os
import stat
from pathlib import Path

from quotary.errors import CannotTell, Malformed, Refused

MAX_KEY_FILE = 16_384


def read_secret(path: Path, limit: int = MAX_KEY_FILE) -> bytes:
    """Read a file of at most ``limit`` bytes; one that others may read is refused."""
    data, mode = read_key_file(path, limit)
    if mode & 0o077:
        fix = f"chmod 600 {path}"
        raise Refused("key file", f"{path} with mode {mode:04o}", "mode 0600", next_command=fix)
    return data


def read_key_file(path: Path, limit: int = MAX_KEY_FILE) -> tuple[bytes, int]:
    """Read a key file, secret or public; return its permission bits beside it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(limit + 1)
    except OSError as error:
        raise CannotTell(f"cannot read the key file {path}: {error.strerror}") from error
    if len(data) > limit:
        raise Malformed(f"key file {path} has more than {limit} bytes")
    return data, mode
