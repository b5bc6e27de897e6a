"""What an entry says, in one plain sentence and a few facts, for the pages."""

import json
from dataclasses import dataclass, field

from quotary.errors import QuotaryError
from quotary.statements.envelope import Envelope
from quotary.statements.order import order_of
from quotary.statements.release import Release
from quotary.statements.row import Row
from quotary.statements.schema import parse_statement
from quotary.statements.sentence import sentence
from quotary.tlog.merkle import leaf_hash


@dataclass(frozen=True, slots=True)
class Description:
    """One entry for people.

    summary: one sentence that says who says what
    signers: key ids of the envelope, not checked here
    rows:    reference values, for a release
    pretty:  the signed document, indented; the exact bytes are served elsewhere
    """

    index: int
    kind: str
    summary: str
    leaf_hash: str
    length: int
    statement_id: str | None = None
    service: str | None = None
    signers: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    release: Release | None = field(default=None, repr=False)
    pretty: str = ""


def describe(index: int, entry: bytes) -> Description:
    """Describe any entry, also one that is not a statement of ours."""
    hashed, length = leaf_hash(entry).hex(), len(entry)
    try:
        envelope = Envelope.parse(entry)
        statement = parse_statement(envelope.payload)
    except QuotaryError:
        kind, summary = _reserved(entry)
        return Description(index, kind, summary, hashed, length, pretty=_pretty(entry))
    release = statement.predicate if isinstance(statement.predicate, Release) else None
    return Description(
        index,
        statement.kind,
        sentence(statement),
        hashed,
        length,
        statement.statement_id,
        statement.service,
        tuple(signature.keyid for signature in envelope.signatures),
        release.rows if release else (),
        release,
        _pretty(envelope.payload),
    )


def _reserved(entry: bytes) -> tuple[str, str]:
    try:
        if (order := order_of(entry)) is not None:
            return order.kind, f"On the word of its roots: {order.sentence}."
        document = json.loads(entry)
        kind = document["type"]
    except (QuotaryError, ValueError, TypeError, KeyError):
        return "unknown", "These bytes are no statement that this version knows."
    if kind == "state":
        return (
            "state",
            f"The log commits to the status of everything in the {document.get('size')} entries before.",
        )
    return str(kind), "A record that only the log itself can make."


def _pretty(data: bytes) -> str:
    try:
        return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except ValueError:
        return repr(data[:2000])
