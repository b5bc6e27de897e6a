"""Statements about other statements: revocation and rebuild (design section 4)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quotary.canonical import Fields, hexbytes
from quotary.errors import Malformed
from quotary.statements.predicates import Header, header, refuse_log, strings

MAX_MEASUREMENTS = 256
MAX_REASON = 512

Verdict = Literal["match", "mismatch", "failed"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """Take a release or measurement ids out of use.

    suspend_until: absent for ``revoke``, which is final
    release:       statement id; exactly one of this and ``measurements`` is present
    measurements:  ids of 32 bytes, ascending
    advisory:      where to read more
    replacement:   statement id of the release to use instead
    """

    header: Header
    suspend_until: datetime | None
    release: str | None
    measurements: tuple[bytes, ...]
    reason: str
    advisory: str | None
    replacement: str | None


@dataclass(frozen=True, slots=True)
class RebuiltRow:
    """What a rebuild found for one measurement id (32 bytes); ``found``: registers that differ, in hex."""

    measurement: bytes
    match: bool
    found: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Somebody else built a release: with which tool, and what came out.

    match:    at least one row, and every row matches
    mismatch: at least one row does not
    failed:   it could not be built; there are no rows, and it speaks of every row of the release
    """

    header: Header
    release: str
    organisation: str
    tool: str
    verdict: Verdict
    rows: tuple[RebuiltRow, ...]
    detail: str | None


def parse_revocation(fields: Fields) -> Revocation:
    """Read the predicate of a revocation."""
    found = header(fields)
    action = fields.choice("action", "revoke", "suspend")
    if (action == "suspend") != fields.has("until"):
        raise Malformed("until is present for suspend and for nothing else")
    if fields.has("release") == fields.has("measurements"):
        raise Malformed("a revocation names a release or measurements, not both")
    ids = strings(fields, "measurements", MAX_MEASUREMENTS, low=1) if fields.has("measurements") else ()
    return Revocation(
        found,
        fields.optional("until", fields.time),
        fields.optional("release", fields.identity),
        tuple(hexbytes(text, 32) for text in ids),
        fields.text("reason", MAX_REASON),
        fields.optional("advisory", lambda name: fields.text(name, 1024)),
        fields.optional("replacement", fields.identity),
    )


def parse_rebuild(fields: Fields) -> Rebuild:
    """Read the predicate of a rebuild."""
    found = header(fields)
    refuse_log(found, "rebuild")
    rebuild = Rebuild(
        found,
        fields.identity("release"),
        fields.text("organisation", 256),
        fields.text("tool", 256),
        _verdict(fields.choice("verdict", "match", "mismatch", "failed")),
        tuple(_rebuilt(item) for item in fields.items("rows", MAX_MEASUREMENTS)),
        fields.optional("detail", lambda name: fields.text(name, 1024)),
    )
    ids = [row.measurement for row in rebuild.rows]
    if ids != sorted(set(ids)):
        raise Malformed("rows are not in ascending order of their measurement, each once")
    matches = {row.match for row in rebuild.rows}
    if {"match": matches == {True}, "mismatch": False in matches, "failed": not matches}[rebuild.verdict]:
        return rebuild
    raise Malformed(f"the rows do not say {rebuild.verdict}")


def _verdict(text: str) -> Verdict:
    return "match" if text == "match" else "mismatch" if text == "mismatch" else "failed"


def _rebuilt(value: object) -> RebuiltRow:
    fields = Fields(value, "rebuilt row")
    row = RebuiltRow(
        fields.hexbytes("measurement", 32),
        fields.boolean("match"),
        _found(fields) if fields.has("found") else (),
    )
    fields.done()
    if row.match and row.found:
        raise Malformed("a row that matches has no differing registers")
    return row


def _found(fields: Fields) -> tuple[tuple[str, str], ...]:
    members = fields.mapping("found", 16)
    if not members:
        raise Malformed("found is absent where no register differs")
    registers = Fields(members, "found")
    return tuple((name, registers.hexadecimal(name, 64).hex()) for name in members)
