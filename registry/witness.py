"""Our own witness: cosigns what extends what it has seen, and remembers it first (c2sp.org/tlog-witness).

It runs apart from the log, with its own key, preferably by somebody else. Check and memory of one log
happen under one lock; the memory is on disk before the cosignature leaves.
"""

import fcntl
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from quotary.canonical import unb64
from quotary.errors import InvalidProof, InvalidSignature, Malformed, NotAuthorised
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.cosignature import cosign
from quotary.tlog.merkle import EMPTY_ROOT, verify_consistency
from quotary.tlog.note import Note, SigningKey, VerifierKey
from registry.errors import NotFound
from registry.keys import write_durably

MAX_REQUEST = 1 << 20
MAX_PROOF = 63


class Conflict(Exception):
    """The request's old size is not the newest that this witness has cosigned, which is ``size``."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the newest cosigned size is {size}")
        self.size = size


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size the log believes we have seen, the proof from it, the signed checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    note_bytes: bytes

    @classmethod
    def parse(cls, body: bytes) -> "AddCheckpoint":
        head, separator, note = body.partition(b"\n\n")
        try:
            old, *proof = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise Malformed("the lines above the checkpoint are not ASCII") from error
        word, _, size = old.partition(" ")
        canonical = size.isascii() and size.isdigit() and len(size) < 20 and str(int(size)) == size
        if not separator or word != "old" or not canonical or len(proof) > MAX_PROOF:
            raise Malformed(
                "a request is a line 'old SIZE', at most 63 hashes, an empty line and a checkpoint"
            )
        hashes = tuple(unb64(line, length=32) for line in proof)
        return cls(int(size), hashes, _note(note), note)


class Witness:
    """One witness: its key, the logs it knows, its memory of each."""

    def __init__(
        self, folder: Path, key: SigningKey, logs: Iterable[VerifierKey], now: Callable[[], datetime]
    ) -> None:
        self._folder = folder
        self._key = key
        self._logs = tuple(logs)
        self._now = now
        self._lock = threading.Lock()

    def add_checkpoint(self, body: bytes) -> bytes:
        """Give the cosignature line, or raise.

        ``Malformed`` 400, ``NotFound`` 404 for an unknown log, ``NotAuthorised`` 403 without a valid
        signature of a known key, ``Conflict`` 409, ``InvalidProof`` 422.
        """
        request = AddCheckpoint.parse(body)
        checkpoint = self._signed(request.note)
        with self._memory(checkpoint.origin) as path:
            seen = _recall(path)
            if request.old_size > checkpoint.size:
                raise Malformed(f"old size {request.old_size} is beyond the checkpoint's {checkpoint.size}")
            if request.old_size != seen.size:
                raise Conflict(seen.size)
            _check_growth(seen, checkpoint, request.proof)
            time = int(self._now().timestamp())
            line = cosign(request.note.text, self._key, time).encode("utf-8")
            write_durably(path, request.note_bytes + line, 0o644)
        return line

    def newest(self, origin_hash: str) -> bytes:
        """Give the newest cosigned checkpoint of the log whose origin has this SHA-256 in hex."""
        for log in self._logs:
            path = self._path(log.name)
            if path.name == origin_hash and path.exists():
                return path.read_bytes()
        raise NotFound("no checkpoint of this log was cosigned here")

    def _signed(self, note: Note) -> Checkpoint:
        origin = note.text.partition("\n")[0]
        keys = [key for key in self._logs if key.name == origin]
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
        return self._folder / "seen" / hashlib.sha256(origin.encode("utf-8")).hexdigest()


def _note(data: bytes) -> Note:
    """Parse a note; where only its signature lines cannot be read, nobody has signed it: 403, not 400."""
    try:
        return Note.parse(data)
    except Malformed as error:
        text, _, lines = data.rpartition(b"\n\n")
        if not text or not lines.startswith("\u2014 ".encode()):
            raise
        raise NotAuthorised(f"invalid signature: {error}") from error


def _recall(path: Path) -> Checkpoint:
    if not path.exists():
        return Checkpoint("", 0, EMPTY_ROOT)
    return Checkpoint.parse(Note.parse(path.read_bytes()).text)


def _check_growth(seen: Checkpoint, found: Checkpoint, proof: tuple[bytes, ...]) -> None:
    if found.size == 0 and found.root != EMPTY_ROOT:
        raise InvalidProof("an empty log has the hash of nothing as its root")
    if seen.size == 0 or seen.size == found.size:
        if proof:
            raise InvalidProof(f"no consistency proof is needed from {seen.size}, found {len(proof)} hashes")
        if seen.size == found.size and seen.size and seen.root != found.root:
            raise InvalidProof(f"another root at the size {seen.size}")
        return
    try:
        verify_consistency(seen.size, found.size, seen.root, found.root, proof)
    except Malformed as error:
        raise InvalidProof(f"consistency proof: {error}") from error
