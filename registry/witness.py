"""Our own witness: cosigns what extends what it has seen, and remembers it first (c2sp.org/tlog-witness).

It runs apart from the log, with its own key, preferably by somebody else. Check and memory of one log
happen under one lock; the memory is on disk before the cosignature leaves.
"""

import fcntl
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from quotary.errors import InvalidSignature, Malformed, NotAuthorised
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.cosignature import cosign
from quotary.tlog.merkle import EMPTY_ROOT
from quotary.tlog.note import Note, SigningKey, VerifierKey
from quotary.tlog.witness import AddCheckpoint, Conflict, check_growth
from registry import flush
from registry.errors import FlushFailed, NotFound
from registry.keys import write_durably

MEMORY = "seen"


class Witness:
    """One witness: its key, the keys of the logs that it knows now, its memory of each."""

    def __init__(
        self,
        folder: Path,
        key: SigningKey,
        logs: Callable[[], Iterable[VerifierKey]],
        now: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._key = key
        self._logs = logs
        self._now = now
        self._lock = threading.Lock()
        self._failed = _standing(folder)

    def add_checkpoint(self, body: bytes) -> bytes:
        """Give the cosignature line, or raise.

        ``Malformed`` 400, ``NotFound`` 404 for an unknown log, ``NotAuthorised`` 403 without a valid
        signature of a known key, ``Conflict`` 409, ``InvalidProof`` 422, ``FlushFailed`` 507 where the
        disk did not confirm what was remembered, and from then on.
        """
        request = AddCheckpoint.parse(body)
        checkpoint = self._signed(request.note)
        with self._memory(checkpoint.origin) as path:
            seen = _recall(path)
            if request.old_size > checkpoint.size:
                raise Malformed(f"old size {request.old_size} is beyond the checkpoint's {checkpoint.size}")
            if request.old_size != seen.size:
                raise Conflict(seen.size)
            check_growth(seen, checkpoint, request.proof)
            time = int(self._now().timestamp())
            line = cosign(request.note.text, self._key, time).encode("utf-8")
            self._remember(path, request.note_bytes + line)
        return line

    def check_disk(self) -> None:
        """Raise the ``FlushFailed`` after which nothing is cosigned until the machine was restarted."""
        if self._failed is not None:
            raise self._failed

    def _remember(self, path: Path, note: bytes) -> None:
        self.check_disk()
        try:
            write_durably(path, note, 0o644)
        except FlushFailed as error:
            self._failed = error
            flush.remember(self._folder / MEMORY, error)
            raise

    def newest(self, origin_hash: str) -> bytes:
        """Give the newest cosigned checkpoint of the log whose origin has this SHA-256 in hex."""
        for log in self._logs():
            path = self._path(log.name)
            if path.name == origin_hash and path.exists():
                return path.read_bytes()
        raise NotFound("no checkpoint of this log was cosigned here")

    def _signed(self, note: Note) -> Checkpoint:
        origin = note.text.partition("\n")[0]
        keys = [key for key in self._logs() if key.name == origin]
        if not keys:
            raise NotFound(f"unknown log {origin[:200]}")
        try:
            note.verify(keys)
        except InvalidSignature as error:
            raise NotAuthorised(f"invalid signature: {error}") from error
        return Checkpoint.parse(note.text)

    @contextmanager
    def _memory(self, origin: str) -> Iterator[Path]:
        with self._lock, open(self._folder / "witness.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._path(origin)

    def _path(self, origin: str) -> Path:
        return self._folder / MEMORY / hashlib.sha256(origin.encode("utf-8")).hexdigest()


def _standing(folder: Path) -> FlushFailed | None:
    """Give what is noted of this boot; after another one the memory comes from the disk.

    It is whole as it lies there: what was not flushed for sure was not cosigned.
    """
    try:
        flush.withdraw(folder / MEMORY)
    except FlushFailed as error:
        return error
    return None


def _recall(path: Path) -> Checkpoint:
    if not path.exists():
        return Checkpoint("", 0, EMPTY_ROOT)
    return Checkpoint.parse(Note.parse(path.read_bytes()).text)
