"""Opened entries on their way from one process of an audit to another.

Nearly all of a log are releases. Of one only what F1 asks for travels, as plain values: that takes a third of
what it takes to pickle the whole statement and to make it again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from quotary.statements.envelope import Envelope, Signature
from quotary.statements.opened import Opened
from quotary.statements.predicates import Header
from quotary.statements.release import Release, ReleaseClaim
from quotary.statements.schema import Statement

_Plain = tuple[bytes, tuple[tuple[str, bytes], ...], str, str, str, int, float, float, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Carried:
    """Opened entries by their place in a batch: releases as plain values, all others as they are."""

    releases: Mapping[int, _Plain]
    others: Mapping[int, Opened]

    @classmethod
    def of(cls, opened: Sequence[Opened | None]) -> "Carried":
        """Take entries; None stands for reserved records, which stay where they are."""
        releases: dict[int, _Plain] = {}
        others: dict[int, Opened] = {}
        for offset, item in enumerate(opened):
            if item is None:
                continue
            plain = _plain(item)
            if plain is None:
                others[offset] = item
            else:
                releases[offset] = plain
        return cls(releases, others)

    def opened(self) -> Iterator[tuple[int, Opened]]:
        """Give the entries in the order of their places; of releases, what F1 asks for."""
        for offset in sorted([*self.releases, *self.others]):
            plain = self.releases.get(offset)
            yield offset, self.others[offset] if plain is None else _release(plain)


def _plain(opened: Opened) -> _Plain | None:
    envelope, statement = opened.envelope, opened.statement
    if envelope is None or statement is None or not isinstance(statement.predicate, Release):
        return None
    found = statement.predicate.claim
    return (
        envelope.payload,
        tuple((item.keyid, item.sig) for item in envelope.signatures),
        statement.statement_id,
        found.header.log,
        found.header.service,
        found.header.sequence,
        found.header.issued.timestamp(),
        found.not_after.timestamp(),
        found.measurements,
    )


def _release(plain: _Plain) -> Opened:
    payload, signatures, name, log, service, sequence, issued, not_after, measurements = plain
    header = Header(log, service, sequence, datetime.fromtimestamp(issued, UTC))
    claim = ReleaseClaim(header, datetime.fromtimestamp(not_after, UTC), measurements)
    envelope = Envelope(payload, tuple(Signature(keyid, sig) for keyid, sig in signatures))
    return Opened(envelope, Statement("release", name, claim))
