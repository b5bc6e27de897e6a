"""From an entry that was replayed to what a monitor's rules can ask about it."""

from collections.abc import Iterator

from quotary.client.replay import Interval
from quotary.client.replay_state import StoredState
from quotary.client.replay_store import ReplayStore
from quotary.client.watch import Event
from quotary.statements.opened import open_entry
from quotary.statements.outcome import NOTICE, Outcome
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.schema import Statement
from quotary.statements.sentence import sentence
from quotary.statements.terms import terms_of


def events_of(interval: Interval, store: ReplayStore) -> Iterator[Event]:
    """Give what an interval that is just ending holds, in log order; ``store`` still has its entries."""
    known = store.state()
    for outcome in interval.outcomes:
        yield _event(outcome, store.waited(outcome.index), known)
    if interval.order is not None:
        said = f"The log's roots ordered: {interval.order.sentence}."
        yield Event(interval.index - 1, "order", "", frozenset(), frozenset(), frozenset(), said)


def _event(outcome: Outcome, entry: bytes, known: StoredState) -> Event:
    opened = open_entry(entry)
    statement, envelope = opened.statement, opened.envelope
    signatures = envelope.signatures if envelope else ()
    signers = frozenset(item.keyid.removeprefix("sha256:") for item in signatures)
    if statement is None:
        said = f"An entry without effect ({outcome.code}), which this version cannot read."
        return Event(outcome.index, "ignored", opened.statement_id, frozenset(), signers, frozenset(), said)
    services, touched = _touched(statement, known)
    names = frozenset(term.removeprefix("sha256:") for term in terms_of(statement) | touched)
    kind, said = _kind(statement, outcome), sentence(statement)
    if kind == "ignored":
        said = f"Without effect ({outcome.code}): {said}"
    return Event(outcome.index, kind, statement.statement_id, services, signers, names, said)


def _kind(statement: Statement, outcome: Outcome) -> str:
    if outcome.code == NOTICE:
        return "notice"
    if not outcome.effect:
        return "ignored"
    if isinstance(statement.predicate, Rebuild) and statement.predicate.verdict != "match":
        return "mismatch"
    return statement.kind


def _touched(statement: Statement, known: StoredState) -> tuple[frozenset[str], frozenset[str]]:
    """Give the services and measurement ids that a statement is about without naming them."""
    services, names = {statement.service}, set[str]()
    match statement.predicate:
        case Revocation() | Rebuild() as predicate:
            if predicate.release and (released := known.release(predicate.release)):
                services.add(released.service)
                names |= {measurement.hex() for measurement in released.measurements}
    if isinstance(statement.predicate, Revocation):
        services |= {name for item in statement.predicate.measurements for name in known.holders(item)}
    return frozenset(services), frozenset(names)
