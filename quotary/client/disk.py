"""New files, whole or not at all: what a full disk cut short does not stay behind."""

import os
from pathlib import Path

from quotary.errors import CannotTell, Usage, as_ours

PRIVATE = 0o600
PUBLIC = 0o666
"""Before the user's umask."""


def write_new(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write a file that must not exist yet: ``Usage`` where it does, ``CannotTell`` where it cannot be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise Usage(f"{path} exists; it is never overwritten", next_command="name a new file") from error
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CannotTell:
    """Say which file could not be written and why."""
    return CannotTell(f"cannot write {path}: {error.strerror}", next_command=as_ours(error).next_command)
