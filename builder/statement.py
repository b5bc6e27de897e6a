"""Unsigned statements and signed entries as files: what a person reviews, signs and sends."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quotary.canonical import time_text
from quotary.client.disk import write_new
from quotary.errors import CannotTell, Malformed
from quotary.statements.envelope import MAX_ENTRY, Envelope, Signer, sign
from quotary.statements.schema import Statement, parse_statement, statement_payload

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Head:
    """What every predicate begins with: origin of the log, whose statement, its number, the maker's clock."""

    log: str
    service: str
    sequence: int
    issued: datetime

    def members(self) -> dict[str, object]:
        """Return the four members as they are written."""
        issued = time_text(self.issued)
        return {"log": self.log, "service": self.service, "sequence": self.sequence, "issued": issued}


def now() -> datetime:
    """Return the machine's time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def seconds() -> int:
    """Return the machine's time in seconds since 1970."""
    return int(datetime.now(UTC).timestamp())


def write(kind: str, predicate: Mapping[str, object], path: Path) -> Statement:
    """Write a statement's canonical payload to a new file and return it parsed."""
    payload = statement_payload(kind, predicate)
    write_new(path, payload)
    return parse_statement(payload)


def read(path: Path) -> bytes:
    """Read a statement or entry file, at most as large as an entry."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENTRY + 1)
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_ENTRY:
        raise Malformed(f"{path} has more than {MAX_ENTRY} bytes")
    return data


def statement_of(data: bytes) -> tuple[Statement, bytes]:
    """Return the statement of a payload or of an entry, and the payload."""
    try:
        payload = Envelope.parse(data).payload
    except Malformed:
        payload = data
    return parse_statement(payload), payload


def sign_file(data: bytes, keys: Iterable[Signer]) -> tuple[Statement, bytes]:
    """Sign a payload, or add signatures to an entry; return the statement and the entry's bytes."""
    statement, payload = statement_of(data)
    added = Envelope.parse(sign(payload, keys))
    if payload == data:
        return statement, added.encode()
    found = {one.keyid: one for one in (*Envelope.parse(data).signatures, *added.signatures)}
    return statement, Envelope(payload, tuple(found[name] for name in sorted(found))).encode()
