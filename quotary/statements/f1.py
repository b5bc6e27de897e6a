"""F1: from log entries to the status map, a pure function of log bytes (design section 5,
docs/formats/f1.md).

``close`` takes the entries of one publish interval and the log time that its state entry gives them, and
says what each entry did and which records changed. It costs only the new entries. The map itself (a trie
over the records' digests) is kept by the caller, who chooses where its nodes live.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from quotary.errors import Malformed, Unsupported
from quotary.statements.authority import check_signatures, find_powers, met_roles
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.notice import Notice
from quotary.statements.outcome import EFFECTIVE, NOTICE, Ignored, Outcome
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.records import Record
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.rules import Entry, delegate, rebuild, release, revoke, set_floor
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.snapshot import decode_state, encode_state
from quotary.statements.state import Effect, State
from quotary.statements.state_entry import MAX_TS, is_reserved

MAX_SEQUENCE_STEP = 2**32
MAX_AHEAD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Closed:
    """What one interval did.

    changes:  map key (32 bytes) to the new record's bytes; the map's value is their SHA-256
    outcomes: one for each entry that is not a reserved record, in log order
    """

    changes: Mapping[bytes, bytes]
    outcomes: tuple[Outcome, ...]


class F1:
    """The map function of one log, fed interval by interval from entry 0 on.

    origin: the log's origin; statements made for another log have no effect
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._state = State()
        self._next = 0

    def copy(self) -> "F1":
        """Make an F1 that goes on separately from here."""
        other = F1(self._origin)
        other._state = self._state.copy()
        other._next = self._next
        return other

    def dump(self) -> bytes:
        """Write the state (``statements/snapshot.py``)."""
        return encode_state(self._origin, self._next, self._state)

    @classmethod
    def load(cls, origin: str, data: bytes, entry_at: Callable[[int], bytes]) -> "F1":
        """Go on from a state that ``dump`` wrote over the same log; ``Malformed`` if it is not whole."""
        found = cls(origin)
        found._next, found._state = decode_state(origin, data, entry_at)
        return found

    @property
    def origin(self) -> str:
        """Name the log."""
        return self._origin

    @property
    def log_delegation(self) -> Delegation | None:
        """Give the delegation of the log's own roles that is in force; None before the genesis."""
        held = self._state.held.get(LOG_SERVICE)
        return None if held is None else held.delegation

    def close(self, entries: Iterable[tuple[int, bytes]], ts: int) -> Closed:
        """Take the entries of an interval, as (index, bytes) in log order, at log time ``ts`` (seconds).

        Reserved records are skipped. Raises ``Malformed`` if the indices do not rise.
        """
        if not 0 <= ts <= MAX_TS:
            raise Malformed(f"log time {ts} is not within 0 to {MAX_TS}")
        touched: dict[bytes, Record] = {}
        outcomes: list[Outcome] = []
        for index, entry in entries:
            if index < self._next:
                raise Malformed(f"entry {index} comes after entry {self._next - 1}")
            self._next = index + 1
            if is_reserved(entry):
                continue
            outcome, statement, effect = _judge(self._state, self._origin, index, entry, ts)
            outcomes.append(outcome)
            if statement is not None and effect is not None:
                self._state.apply(statement, effect)
                touched.update({record.key: record for record in effect.records})
        changes = {key: record.encode() for key, record in touched.items()}
        return Closed(changes, tuple(outcomes))

    def would(self, entry: bytes, ts: int) -> Outcome:
        """Say what ``close`` would make of an entry that came next; notices are checked as admission must.

        Changes nothing. A reserved record is ``malformed`` here: only the log makes those.
        """
        outcome, statement, _ = _judge(self._state, self._origin, self._next, entry, ts)
        if statement is None or not isinstance(statement.predicate, Notice):
            return outcome
        try:
            _authenticate(self._state, self._origin, statement, Envelope.parse(entry), outcome.index, ts)
        except Ignored as reason:
            return Outcome(
                outcome.index, statement.kind, statement.statement_id, False, reason.code, reason.detail
            )
        return outcome


def _judge(
    state: State, origin: str, index: int, entry: bytes, ts: int
) -> tuple[Outcome, Statement | None, Effect | None]:
    try:
        envelope = Envelope.parse(entry)
        statement = parse_statement(envelope.payload)
    except Malformed as error:
        return Outcome(index, "", "", False, "malformed", str(error)), None, None
    except Unsupported as error:
        return Outcome(index, "", envelope.statement_id, False, "unknown-kind", str(error)), None, None
    kind, name = statement.kind, statement.statement_id
    if isinstance(statement.predicate, Notice):
        return Outcome(index, kind, name, False, NOTICE), statement, None
    try:
        effect = _effect(state, origin, statement, envelope, index, ts)
    except Ignored as reason:
        return Outcome(index, kind, name, False, reason.code, reason.detail), statement, None
    return Outcome(index, kind, name, True, EFFECTIVE), statement, effect


def _effect(
    state: State, origin: str, statement: Statement, envelope: Envelope, index: int, ts: int
) -> Effect:
    """Decide one statement, in the order of the specification.

    It is for this log, new, of a known service, signed by known keys up to a threshold, not from the future;
    its sequence is next; its own deadline has not passed; then the rule of its kind.
    """
    entry = _authenticate(state, origin, statement, envelope, index, ts)
    _check_sequence(state, statement)
    _check_deadline(statement, ts)
    predicate = statement.predicate
    if isinstance(predicate, Delegation):
        return delegate(state, entry, predicate)
    if isinstance(predicate, Release):
        return release(state, entry, predicate)
    if isinstance(predicate, Rebuild):
        return rebuild(state, entry, predicate)
    if isinstance(predicate, Revocation):
        return revoke(state, entry, predicate)
    assert isinstance(predicate, TCBFloor)
    return set_floor(state, entry, predicate)


def _authenticate(
    state: State, origin: str, statement: Statement, envelope: Envelope, index: int, ts: int
) -> Entry:
    if statement.log != origin:
        raise Ignored("other-log", f"made for the log {statement.log}")
    if statement.statement_id in state.effective:
        raise Ignored("replay", "the same statement had effect before")
    powers = find_powers(state, statement, index)
    signers = check_signatures(powers, state, statement.service, envelope)
    roles = met_roles(powers, signers, ts)
    if statement.issued.timestamp() > ts + MAX_AHEAD_SECONDS:
        raise Ignored("issued-in-future", f"issued more than {MAX_AHEAD_SECONDS} s after log time")
    return Entry(index, statement.statement_id, signers, roles, ts)


def _check_sequence(state: State, statement: Statement) -> None:
    last = state.sequences.get((statement.service, statement.kind), 0)
    found = statement.sequence
    if found <= last or (statement.kind == "delegation" and found != last + 1):
        raise Ignored("sequence", f"sequence is {found}, the last effective one is {last}")
    # Whoever may take one step must not be able to use up all numbers with it.
    if found - last > MAX_SEQUENCE_STEP:
        raise Ignored("sequence-jump", f"sequence is {found}, at most {last + MAX_SEQUENCE_STEP} can follow")


def _check_deadline(statement: Statement, ts: int) -> None:
    predicate = statement.predicate
    if isinstance(predicate, Release):
        deadline = predicate.not_after
    elif isinstance(predicate, Delegation | TCBFloor):
        deadline = predicate.expires
    elif isinstance(predicate, Revocation) and predicate.suspend_until is not None:
        deadline = predicate.suspend_until
    else:
        return
    if deadline.timestamp() <= ts:
        raise Ignored("expired", "its own deadline has passed at log time")
