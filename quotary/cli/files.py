"""Reading the files that a command is given, with a limit and one kind of error."""

import json
import os
from pathlib import Path

from quotary.errors import CannotTell, Malformed

MAX_FILE = 64 << 20


def state_folder() -> Path:
    """Give the folder in which this user's commands remember things (XDG Base Directory)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "quotary"


def read_bytes(path: Path, limit: int = MAX_FILE) -> bytes:
    """Read a file of at most ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise Malformed(f"{path} has more than {limit} bytes")
    return data


def read_text(path: Path) -> str:
    """Read a text file."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{path} is not UTF-8 text") from error


def read_json(path: Path) -> object:
    """Read a JSON file that a person may have written, in any spacing."""
    try:
        found: object = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{path} is not JSON") from error
    return found
