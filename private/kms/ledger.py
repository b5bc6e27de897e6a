"""What a node released to whom: a hash chain that only grows, whose head the node signs into the log.

A line is written, and on disk, before the answer that it is about leaves the node. Changing or dropping a
line changes the head; the log has the old one. A line says which machine of which release got which key,
never a key.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quotary.canonical import Fields, canonical, parse_canonical, time_text
from quotary.client.disk import cannot_write
from quotary.client.key_epoch import KIND
from quotary.errors import CannotTell, Malformed
from quotary.statements.schema import statement_payload

MAX_LINE = 4096
_LINE = b"quotary-kms-ledger/v1\n"
_START = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Release:
    """One answer. release: statement id of what the asking machine runs; nonce: of its evidence, 32 bytes."""

    at: datetime
    service: str
    release: str
    measurement: bytes
    label: str
    epoch: int
    generation: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """How many lines there are, and the hash (32 bytes) and the time of the last one."""

    size: int
    digest: bytes
    at: datetime


class Ledger:
    """One file, one process; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Read and verify the whole chain. A line that a crash cut short was never answered, and goes."""
        self._path, self._lock = path, threading.Lock()
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._head = verify_lines(whole.splitlines())
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._length = len(whole)
            os.ftruncate(self._file, self._length)
        except OSError as error:
            raise cannot_write(path, error) from error

    @property
    def head(self) -> Head:
        return self._head

    def append(self, made: Release) -> Head:
        """Write a line; it is on disk when this returns."""
        with self._lock:
            at = made.at.astimezone(UTC).replace(microsecond=0)
            document = {
                "v": 1,
                "index": self._head.size,
                "at": time_text(at),
                "service": made.service,
                "release": made.release,
                "measurement": made.measurement.hex(),
                "label": made.label,
                "epoch": made.epoch,
                "generation": made.generation,
                "nonce": made.nonce.hex(),
                "previous": self._head.digest.hex(),
            }
            line = canonical(document)
            self._write(line + b"\n")
            self._head = Head(self._head.size + 1, _digest(line), at)
            return self._head

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        try:
            at = self._length
            while at < self._length + len(line):
                at += os.pwrite(self._file, line[at - self._length :], at)
            os.fsync(self._file)
        except OSError as error:
            # The next line must not follow on half a line.
            with suppress(OSError):
                os.ftruncate(self._file, self._length)
            raise cannot_write(self._path, error) from error
        self._length += len(line)


def verify_lines(lines: Sequence[bytes]) -> Head:
    """Follow a chain to its head, or raise ``Malformed`` that names the first line that does not fit."""
    head = Head(0, bytes(32), _START)
    for line in lines:
        try:
            fields = Fields(parse_canonical(line, MAX_LINE), "ledger line")
            index, previous = fields.integer("index"), fields.hexbytes("previous", 32)
            at = fields.time("at")
        except Malformed as error:
            raise Malformed(f"line {head.size} of the ledger is damaged: {error}") from error
        if (index, previous) != (head.size, head.digest):
            raise Malformed(f"line {head.size} of the ledger does not follow from the line before")
        head = Head(head.size + 1, _digest(line), at)
    return head


def read_ledger(path: Path) -> Head:
    """Verify a ledger's file without opening it for writing."""
    try:
        return verify_lines(path.read_bytes().splitlines())
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error


def head_payload(origin: str, service: str, node: str, head: Head) -> bytes:
    """Write the statement by which a node, named by its key, commits itself to its ledger's head."""
    item = {"name": f"kms/ledger/{node}", "sha256": head.digest.hex(), "size": head.size}
    predicate: dict[str, object] = {
        "log": origin,
        "service": service,
        "sequence": head.size,
        "issued": time_text(head.at),
        "items": [item],
    }
    return statement_payload(KIND, predicate)


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(_LINE + line).digest()
