"""F1's state beside the database, so that a start replays only what came after it.

The file holds two lines, a size and the root of that size in hex, and the bytes of ``quotary.statements.
snapshot``. One that is not whole, or not of this very tree, is ignored and the log is replayed from entry 0.
Whoever can write the file can make the sequencer commit a wrong map, as whoever can write the database can;
``fsck`` compares it.
"""

import logging
from pathlib import Path

from quotary.errors import Malformed
from quotary.statements.f1 import F1
from quotary.tlog.tiles import root_at
from registry.keys import write_durably
from registry.replica import Follower
from registry.store import Head, Reader
from registry.tree import StoredTiles

log = logging.getLogger("registry")

EVERY_ENTRIES = 10_000


def keep(path: Path, head: Head, f1: F1) -> None:
    """Replace the snapshot; a failure costs the next start some time and nothing else."""
    try:
        write_durably(path, f"{head.size}\n{head.root.hex()}\n".encode("ascii") + f1.dump())
    except OSError as error:
        log.warning("snapshot.failed", extra={"why": str(error)})


def open_follower(origin: str, read: Reader, path: Path | None) -> Follower:
    """Give a follower that stands where the snapshot was made, or before entry 0."""
    follower, head = Follower(origin), read.head()
    if path is None or head is None or not path.exists():
        return follower
    try:
        size, root, data = parts(path)
        if size > head.size or root_at(size, StoredTiles(read)) != root:
            raise Malformed(f"the snapshot is of another tree, of size {size}")
        follower.f1 = F1.load(origin, data, lambda index: read.entries(index, index + 1)[0])
        follower.size = size
    except (Malformed, OSError) as error:
        log.warning("snapshot.ignored", extra={"why": str(error)})
        return Follower(origin)
    return follower


def parts(path: Path) -> tuple[int, bytes, bytes]:
    """Read a file into size, root and F1's own snapshot."""
    try:
        size, root, data = path.read_bytes().split(b"\n", 2)
        return int(size), bytes.fromhex(root.decode("ascii")), data
    except ValueError as error:
        raise Malformed("not a snapshot") from error
