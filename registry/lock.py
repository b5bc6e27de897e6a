"""Locks that the kernel forgets with their holder: one file, one process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quotary.errors import Usage


@contextmanager
def only_one(path: Path, who: str) -> Iterator[None]:
    """Hold a lock file, or raise ``Usage`` where another ``who`` holds it."""
    with open(path, "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Usage(
                f"a {who} already runs over {path.parent}", next_command=f"stop the other {who}"
            ) from error
        yield


def is_held(path: Path) -> bool:
    """Say whether somebody holds a lock file."""
    try:
        with open(path, encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
