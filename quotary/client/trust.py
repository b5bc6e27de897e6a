"""What a verifier remembers: of each log, the newest checkpoint that it accepted.

A log that shows less than it has shown before is refused. A log that shows another tree of the same size, or
goes on after it has ended, has broken its promise in a way that two signed notes prove to anybody, so both
are kept. Nothing is trusted on first use: a checkpoint comes here only after a policy has verified it.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.client.disk import cannot_write
from quotary.errors import CannotTell, Malformed, Refused

MAX_RECORD = 1 << 18
CHECK = "rollback"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The newest checkpoint accepted from one log.

    size:      number of entries
    root:      32 bytes
    note:      the signed note, as it came
    quorum_at: newest time that a witness quorum vouched for, seconds since 1970
    elapsed:   reading of ``Clock.elapsed`` when ``quorum_at`` was seen; None if another process saw it
    final:     the log has ended with this size
    """

    origin: str
    size: int
    root: bytes
    note: bytes
    quorum_at: int
    elapsed: float | None
    final: bool = False


class Memory(Protocol):
    """Remembers the newest accepted checkpoint of each log."""

    def newest(self, origin: str) -> Accepted | None:
        """Give what was accepted before, or None for a log never seen."""
        ...

    def accept(self, found: Accepted) -> None:
        """Remember a checkpoint that a policy verified, or raise ``Refused`` (check ``rollback``)."""
        ...

    def end(self, origin: str) -> None:
        """Remember that a log has ended: nothing larger than what was accepted is accepted any more."""
        ...


class ProcessMemory:
    """A memory that lives as long as its process: the enclave's, and that of one offline judgement."""

    def __init__(self) -> None:
        self._accepted: dict[str, Accepted] = {}
        self._lock = threading.Lock()

    def newest(self, origin: str) -> Accepted | None:
        with self._lock:
            return self._accepted.get(origin)

    def accept(self, found: Accepted) -> None:
        with self._lock:
            self._accepted[found.origin] = successor(self._accepted.get(found.origin), found)

    def end(self, origin: str) -> None:
        with self._lock:
            self._accepted[origin] = replace(self._accepted[origin], final=True)


class FileMemory:
    """A folder with one file a log (0600, replaced atomically); proofs of a fork go to ``evidence/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Readings of the monotonic clock mean nothing to the next process, so they stay here.
        self._here = ProcessMemory()

    def newest(self, origin: str) -> Accepted | None:
        stored = self._load(origin)
        here = self._here.newest(origin)
        if here is not None and stored is not None and here.quorum_at == stored.quorum_at:
            return replace(stored, elapsed=here.elapsed)
        return stored

    def accept(self, found: Accepted) -> None:
        with self._locked(found.origin):
            before = self.newest(found.origin)
            try:
                after = successor(before, found)
            except Refused:
                if before is not None and (before.final or before.size == found.size):
                    self._keep_evidence(before, found)
                raise
            if after != before:
                self._store(after)
            self._here.accept(after)

    def end(self, origin: str) -> None:
        with self._locked(origin):
            before = self._load(origin)
            assert before is not None, "a log is found to have ended after its checkpoint was accepted"
            if not before.final:
                self._store(replace(before, final=True))

    def all(self) -> tuple[Accepted, ...]:
        """Give what is remembered of every log, in the order of their origins."""
        records = [_parse(_read(path), path) for path in sorted(self._folder.glob("*.json"))]
        return tuple(sorted(records, key=lambda record: record.origin))

    def evidence(self) -> tuple[Path, ...]:
        """Give the notes that prove forks; each pair has one prefix."""
        return tuple(sorted((self._folder / "evidence").glob("*.note")))

    def _path(self, origin: str) -> Path:
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.json"

    def _load(self, origin: str) -> Accepted | None:
        path = self._path(origin)
        if not path.exists():
            return None
        found = _parse(_read(path), path)
        if found.origin != origin:
            raise Malformed(f"{path} is about the log {found.origin}, not {origin}")
        return found

    def _store(self, record: Accepted) -> None:
        document: dict[str, object] = {
            "v": 1,
            "origin": record.origin,
            "size": record.size,
            "root": record.root.hex(),
            "note": b64(record.note),
            "quorum_at": record.quorum_at,
        }
        if record.final:
            document["final"] = True
        write_private(self._path(record.origin), canonical(document))

    def _keep_evidence(self, before: Accepted, found: Accepted) -> None:
        folder = self._folder / "evidence"
        folder.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(found.origin.encode()).hexdigest()[:16]
        for note in (before, found):
            write_private(folder / f"{name}-{note.size}-{note.root.hex()[:16]}.note", note.note)

    @contextmanager
    def _locked(self, origin: str) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path(origin).with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CannotTell(f"cannot write the trust folder {self._folder}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def successor(before: Accepted | None, found: Accepted) -> Accepted:
    """Give what to remember after ``found``, or raise ``Refused``: less than before, another tree, or more
    than the log ended with.
    """
    if before is None:
        return found
    if found.size < before.size:
        raise Refused(CHECK, f"{found.size} entries", f"at least the {before.size} accepted before")
    if found.size == before.size and found.root != before.root:
        raise Refused(
            CHECK,
            f"root {found.root.hex()} at {found.size} entries",
            f"root {before.root.hex()}, accepted before: the log has forked",
            next_command="quotary trust show",
        )
    if before.final and found.size > before.size:
        raise Refused(
            CHECK,
            f"{found.size} entries",
            f"the {before.size} with which the log ended",
            next_command="quotary trust show",
        )
    found = replace(found, final=before.final)
    if found.quorum_at >= least_time(before, found.elapsed):
        return found
    # More time has passed here than this checkpoint knows of: the older moment is the better lower bound.
    keeps = before if found.size == before.size else found
    return replace(keeps, quorum_at=before.quorum_at, elapsed=before.elapsed)


def least_time(accepted: Accepted, elapsed: float | None) -> int:
    """Give the earliest that it can be now (seconds since 1970): the quorum's time and what passed since."""
    if accepted.elapsed is None or elapsed is None:
        return accepted.quorum_at
    return accepted.quorum_at + max(0, int(elapsed - accepted.elapsed))


def write_private(path: Path, data: bytes) -> None:
    """Replace a file of mode 0600 so that a crash leaves the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise cannot_write(path, error) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_RECORD + 1)
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error


def _parse(data: bytes, path: Path) -> Accepted:
    try:
        fields = Fields(parse_canonical(data, MAX_RECORD), "remembered checkpoint")
        fields.integer("v", 1, 1)
        found = Accepted(
            fields.text("origin", 255),
            fields.integer("size"),
            fields.hexbytes("root", 32),
            fields.base64("note", limit=MAX_RECORD),
            fields.integer("quorum_at"),
            None,
            fields.optional("final", fields.boolean) or False,
        )
        fields.done()
    except Malformed as error:
        raise Malformed(f"{path} is damaged ({error}): what this machine accepted is lost") from error
    return found
