"""Revocations that somebody hands to a mirror, kept and sent on until the log has answered.

A log that does not take a revocation shows itself: the statement stands here for everybody to see, with
what the log said. Its signatures are not verified here, the log and every auditor do that; so the number of
those that wait is bounded.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quotary.client.log import LogClient
from quotary.client.submit import submit
from quotary.client.trust import write_private
from quotary.errors import CannotTell, Malformed, QuotaryError
from quotary.statements.envelope import Envelope
from quotary.statements.revocation import Revocation
from quotary.statements.schema import parse_statement
from quotary.tlog.merkle import leaf_hash

MAX_KEPT = 1000

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A revocation by its leaf hash, and what the log said; ``answer`` is None until the log took it."""

    name: str
    answer: object | None
    reason: str


class Forwarder:
    """Keeps revocations of one log in a folder: ``HASH.json``, and the log's answer as ``HASH.answer``."""

    def __init__(self, folder: Path, origin: str, log: LogClient) -> None:
        self._folder = folder
        self._origin = origin
        self._log = log
        self._reasons: dict[str, str] = {}

    def take(self, entry: bytes) -> Forwarded:
        """Keep a revocation for this log and send it on; the same bytes again are the same revocation."""
        statement = parse_statement(Envelope.parse(entry).payload)
        if not isinstance(statement.predicate, Revocation):
            raise Malformed(f"a mirror forwards revocations only, found {statement.kind}")
        if statement.log != self._origin:
            raise Malformed(f"a revocation for the log {statement.log}, wanted {self._origin}")
        name = leaf_hash(entry).hex()
        if not (self._folder / f"{name}.json").exists():
            if sum(1 for _ in self._names()) >= MAX_KEPT:
                raise CannotTell(f"{MAX_KEPT} revocations are kept here already")
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise CannotTell(f"cannot make {self._folder}: {error.strerror}") from error
            write_private(self._folder / f"{name}.json", entry)
        self._send(name)
        return self._state(name)

    def retry(self) -> None:
        """Send again what the log has not taken."""
        for name in self._names():
            self._send(name)

    def listed(self) -> list[Forwarded]:
        """Give everything that is kept, in the order of the names."""
        return [self._state(name) for name in self._names()]

    def entry(self, name: str) -> bytes | None:
        """Give a kept revocation, byte for byte."""
        place = self._folder / f"{name}.json"
        return place.read_bytes() if _NAME.fullmatch(name) and place.exists() else None

    def _names(self) -> Iterator[str]:
        yield from sorted(place.stem for place in self._folder.glob("*.json") if _NAME.fullmatch(place.stem))

    def _state(self, name: str) -> Forwarded:
        place = self._folder / f"{name}.answer"
        answer = json.loads(place.read_bytes()) if place.exists() else None
        return Forwarded(name, answer, self._reasons.get(name, ""))

    def _send(self, name: str) -> None:
        place = self._folder / f"{name}.answer"
        if place.exists():
            return
        try:
            found = submit(self._log, (self._folder / f"{name}.json").read_bytes())
        except QuotaryError as error:
            self._reasons[name] = str(error)
            return
        self._reasons.pop(name, None)
        # The promise is the log's signature under a deadline: a missed one is evidence.
        answer = {"index": found.index, "promise": found.promise, "statement_id": found.statement_id}
        write_private(place, json.dumps(answer).encode())
