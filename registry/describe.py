"""What an entry says, in one plain sentence and a few facts, for the pages."""

import json
from dataclasses import dataclass, field

from quotary.errors import QuotaryError
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.order import order_of
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.row import Row
from quotary.statements.schema import Statement, parse_statement
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


def sentence(statement: Statement) -> str:
    """Say in one sentence what a statement claims."""
    predicate, service = statement.predicate, statement.service
    match predicate:
        case Delegation():
            return _delegation(predicate, service)
        case Release():
            what = counted(len(predicate.rows), "measurement")
            return (
                f"A builder of {service} says that source {predicate.source_revision[:16]} gives "
                f"{what}, to be believed until {predicate.not_after:%Y-%m-%d}."
            )
        case Rebuild():
            said = {"match": "got the same", "mismatch": "got something else", "failed": "could not build it"}
            which = f"release {predicate.release[:19]}…"
            return f"{predicate.organisation} rebuilt {which} and {said[predicate.verdict]}."
        case Revocation():
            until = predicate.suspend_until
            verb = f"Suspended until {until:%Y-%m-%d %H:%M}Z" if until else "Revoked for good"
            what = "one release" if predicate.release else counted(len(predicate.measurements), "measurement")
            return f"{verb}: {what} of {service}. Reason given: {predicate.reason}"
        case TCBFloor():
            machines = f"{predicate.platform} machines of product {predicate.product}"
            return f"From here on {machines} need at least this firmware."
        case _:
            return f"A notice of kind {statement.kind} for {service}; it changes no status."


def counted(number: int, noun: str, plural: str = "s") -> str:
    """Write a number of things as a person would: 1 measurement, 2 measurements."""
    return f"{number} {noun}{'' if number == 1 else plural}"


def _delegation(delegation: Delegation, service: str) -> str:
    if service == LOG_SERVICE:
        return "The log's own roots say which keys may allocate services, set floors, revoke and rebuild."
    owners = delegation.roles["owner"]
    if delegation.header.sequence == 1:
        must = f"{counted(len(owners.keys), 'owner key')}, {owners.threshold} of which must sign"
        return f"The service {service} is allocated to {must}."
    others = ", ".join(
        f"{len(role.keys)} {name}" for name, role in sorted(delegation.roles.items()) if name != "owner"
    )
    return f"The owners of {service} name its keys: {others or 'owners only'}."


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
