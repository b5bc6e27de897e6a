"""Keep an object store in step with the published log: tiles once and for ever, the checkpoint last.

What is behind the store's own checkpoint is there already, so a start goes on from it, if it is of this very
log. Full objects are created and never replaced; partial ones are those of published checkpoints, and go when
their full object is there. Bundles are not uploaded: they are only as good as they are new.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quotary.errors import Malformed, QuotaryError, Refused, Unsupported
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note
from quotary.tlog.tiles import TILE_WIDTH, TilePath, root_at, width_at
from registry.c2sp import BYTES, IMMUTABLE, SHORT, TEXT
from registry.errors import NotPublished
from registry.export import paths_at
from registry.public import PublicLog

if TYPE_CHECKING:
    from registry.objects import Bucket

log = logging.getLogger("registry")

CHECKPOINT = "checkpoint"
MAX_RETRY_SECONDS = 60.0
STOP_SECONDS = 5.0


def open_bucket(url: str) -> "Bucket":
    """Open ``s3://BUCKET/PREFIX``; raise ``Unsupported`` where the optional dependency is not installed."""
    try:
        from registry.objects import Bucket
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise Unsupported(
            "object stores need the Python package obstore, which is not installed",
            next_command="pip install 'quotary[s3]'",
        ) from error
    return Bucket(url)


class Upload:
    """Writes what a bucket lacks."""

    def __init__(self, public: PublicLog, bucket: "Bucket") -> None:
        self._public = public
        self._bucket = bucket
        self._size: int | None = None
        self._note = b""

    def run(self, *, compare_all: bool = False) -> int:
        """Write what is missing for the published size, and give that size.

        compare_all: look at each object that must be there, not only at those after the store's checkpoint
        """
        snapshot = self._public.snapshot()
        if snapshot.note == self._note:
            return snapshot.size
        if self._size is None:
            found = self._stored_size(snapshot.size)
            self._size = 0 if compare_all else found
        for path in paths_at(snapshot.size, self._size):
            if path.width != self._width(path, self._size):
                self._write(path, snapshot.size)
        self._bucket.replace(CHECKPOINT, snapshot.note, TEXT, SHORT)
        self._size, self._note = snapshot.size, snapshot.note
        return snapshot.size

    def _stored_size(self, size: int) -> int:
        """Give the size of the store's checkpoint; refuse a store of another log, or with a later one."""
        note = self._bucket.get(CHECKPOINT)
        if note is None:
            return 0
        try:
            found = Checkpoint.parse(Note.parse(note).text)
        except Malformed as error:
            raise Refused("checkpoint of the object store", "something else", "a checkpoint") from error
        if found.size > size:
            raise Refused("size of the object store", str(found.size), f"at most the published {size}")
        if found.size and root_at(found.size, self._public.tiles) != found.root:
            raise Refused(f"root of size {found.size} in the object store", found.root.hex(), "ours")
        return found.size

    def _write(self, path: TilePath, size: int) -> None:
        self._bucket.create(str(path), self._public.tile_bytes(path, size), BYTES, IMMUTABLE)
        if path.width == TILE_WIDTH and self._width(path, self._size or 0):
            self._bucket.remove_under(f"{path}.p")

    def _width(self, path: TilePath, size: int) -> int:
        return width_at(path.level or 0, path.n, size)


@contextmanager
def uploading(upload: Upload, interval_seconds: float) -> Iterator[None]:
    """Upload beside the sequencer, which never waits for it and never fails with it.

    At the end an upload in progress is given a few seconds; the next start goes on with it.
    """
    stop = threading.Event()
    words = (upload, interval_seconds, stop)
    thread = threading.Thread(target=_keep_uploading, args=words, name="upload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_SECONDS)


def _keep_uploading(upload: Upload, interval_seconds: float, stop: threading.Event) -> None:
    wait = interval_seconds
    while not stop.wait(wait):
        try:
            upload.run()
            wait = interval_seconds
        except NotPublished:
            pass
        except QuotaryError as error:
            wait = min(MAX_RETRY_SECONDS, 2 * wait)
            log.warning("upload.failed", extra={"why": str(error), "retry_seconds": wait})
