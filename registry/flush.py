"""A flush that failed, noted beside the file that it was for, so that a process started again knows of it.

The kernel may count pages as written that never got to the disk, and gives them to whoever reads again until
the machine is restarted. So the note names the boot, and it is withdrawn in another one only, by ``registry
fsck`` or the start of a witness, when what they read came from the disk. Where the disk refuses the note as
well, only the process knows.
"""

import logging
import os
from pathlib import Path

from registry.errors import FlushFailed

log = logging.getLogger("registry")

SUFFIX = ".flush-failed"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def note_of(file: Path) -> Path:
    """Name the note about a file."""
    return file.with_name(file.name + SUFFIX)


def remember(file: Path, error: FlushFailed) -> None:
    """Note that a flush of a file failed in this boot."""
    try:
        with open(note_of(file), "w", encoding="utf-8") as note:
            note.write(f"{_boot()}\n{error.found}\n")
            note.flush()
            os.fsync(note.fileno())
    except OSError as why:
        log.error("flush.not_noted", extra={"file": str(file), "why": str(why)})


def recall(file: Path) -> FlushFailed | None:
    """Give what is noted about a file; None where nothing is."""
    note = note_of(file)
    if not note.exists():
        return None
    _, _, found = note.read_text("utf-8", "replace").partition("\n")
    return FlushFailed(found.strip() or f"the note {note}")


def withdraw(file: Path) -> None:
    """Take back the note about a file that was read whole, or raise what it says where it is of this boot."""
    error = recall(file)
    if error is None:
        return
    if note_of(file).read_text("utf-8", "replace").startswith(_boot()):
        raise error
    note_of(file).unlink()
    log.warning("flush.withdrawn", extra={"file": str(file), "what": error.found})


def _boot() -> str:
    return BOOT.read_text("ascii").strip()
