"""F1: from log entries to the status map, a pure function of log bytes (design section 5,
docs/formats/f1.md).

``close`` takes the entries of one publish interval and the log time that its state entry gives them, and
says what each entry did and which records changed. It costs only the new entries. The map itself (a trie
over the records' digests) is kept by the caller, who chooses where its nodes live.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from quotary.errors import Malformed
from quotary.statements.authority import Verify, check_signatures, find_powers, met_roles
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, verify
from quotary.statements.floor import TCBFloor
from quotary.statements.notice import Notice
from quotary.statements.opened import Opened, open_entry
from quotary.statements.outcome import EFFECTIVE, NOTICE, Ignored, Outcome
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.records import Record
from quotary.statements.release import Release, ReleaseClaim
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.rules import Entry, delegate, rebuild, release, revoke, set_floor
from quotary.statements.schema import Statement
from quotary.statements.state import Effect, Known, State
from quotary.statements.state_entry import MAX_TS, is_reserved

MAX_SEQUENCE_STEP = 2**32
MAX_AHEAD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Closed:
    """What one interval did.

    changes:  map key (32 bytes) to the new record's bytes; the map's value is their SHA-256
    outcomes: one for each entry that is not a reserved record, in log order
    records:  the same records as ``changes``
    denied:   measurement ids that no service may use from now on, with the reason
    """

    changes: Mapping[bytes, bytes]
    outcomes: tuple[Outcome, ...]
    records: Mapping[bytes, Record]
    denied: Mapping[bytes, str]


class F1:
    """The map function of one log, fed interval by interval from entry 0 on.

    origin: the log's origin; statements made for another log have no effect
    state:  what is known before the entry ``following``; it is changed by what comes
    verify: checks one signature by a public key (32 bytes), or raises ``InvalidSignature``
    """

    def __init__(
        self, origin: str, state: State | None = None, following: int = 0, verify: Verify = verify
    ) -> None:
        self._origin = origin
        self._state = state or State()
        self._next = following
        self._verify = verify

    def copy(self) -> "F1":
        """Make an F1 that goes on separately from here."""
        return F1(self._origin, self._state.copy(), self._next, self._verify)

    @property
    def origin(self) -> str:
        """Name the log."""
        return self._origin

    @property
    def log_delegation(self) -> Delegation | None:
        """Give the delegation of the log's own roles that is in force; None before the genesis."""
        held = self._state.held(LOG_SERVICE)
        return None if held is None else held.delegation

    def close(self, entries: Iterable[tuple[int, bytes]], ts: int) -> Closed:
        """Take the entries of an interval, as (index, bytes) in log order, at log time ``ts`` (seconds).

        Reserved records are skipped. Raises ``Malformed`` if the indices do not rise.
        """
        return self.decide(self._opened(entries), ts)

    def decide(self, entries: Iterable[tuple[int, Opened]], ts: int) -> Closed:
        """Take an interval like ``close``, of entries that are no reserved records and opened already."""
        if not 0 <= ts <= MAX_TS:
            raise Malformed(f"log time {ts} is not within 0 to {MAX_TS}")
        touched: dict[bytes, Record] = {}
        denied: dict[bytes, str] = {}
        outcomes: list[Outcome] = []
        for index, opened in entries:
            self._reach(index)
            outcome, effect = self._judge(opened, index, ts)
            outcomes.append(outcome)
            if effect is not None:
                self._apply(opened, effect)
                touched.update({record.key: record for record in effect.records})
                denied.update(effect.denied)
        changes = {key: record.encode() for key, record in touched.items()}
        return Closed(changes, tuple(outcomes), touched, denied)

    def would(self, entry: bytes, ts: int) -> Outcome:
        """Say what ``close`` would make of an entry that came next; notices are checked as admission must.

        Changes nothing. A reserved record is ``malformed`` here: only the log makes those.
        """
        return self.consider(open_entry(entry), ts)

    def consider(self, opened: Opened, ts: int) -> Outcome:
        """Say the same of an entry that is opened already."""
        return self._would(opened, ts)[0]

    def admit(self, opened: Opened, ts: int) -> Outcome:
        """Consider an entry, and go on as if it were logged where it is admissible."""
        outcome, effect = self._would(opened, ts)
        if effect is not None:
            self._apply(opened, effect)
        self._next += outcome.admissible
        return outcome

    def _opened(self, entries: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Opened]]:
        for index, entry in entries:
            if is_reserved(entry):
                self._reach(index)
            else:
                yield index, open_entry(entry)

    def _reach(self, index: int) -> None:
        if index < self._next:
            raise Malformed(f"entry {index} comes after entry {self._next - 1}")
        self._next = index + 1

    def _apply(self, opened: Opened, effect: Effect) -> None:
        assert opened.statement is not None  # nothing else has an effect
        self._state.apply(opened.statement, effect)

    def _would(self, opened: Opened, ts: int) -> tuple[Outcome, Effect | None]:
        outcome, effect = self._judge(opened, self._next, ts)
        statement, envelope = opened.statement, opened.envelope
        if statement is None or envelope is None or not isinstance(statement.predicate, Notice):
            return outcome, effect
        try:
            self._authenticate(statement, envelope, outcome.index, ts)
        except Ignored as reason:
            return _ignored(outcome.index, statement, reason), None
        return outcome, None

    def _judge(self, opened: Opened, index: int, ts: int) -> tuple[Outcome, Effect | None]:
        statement, envelope = opened.statement, opened.envelope
        if statement is None or envelope is None:
            return Outcome(index, "", opened.statement_id, False, opened.code, opened.detail), None
        kind, name = statement.kind, statement.statement_id
        if isinstance(statement.predicate, Notice):
            return Outcome(index, kind, name, False, NOTICE), None
        try:
            entry = self._authenticate(statement, envelope, index, ts)
            return Outcome(index, kind, name, True, EFFECTIVE), _effect(self._state, entry, statement)
        except Ignored as reason:
            return _ignored(index, statement, reason), None

    def _authenticate(self, statement: Statement, envelope: Envelope, index: int, ts: int) -> Entry:
        """It is for this log, new, of a known service, signed by known keys up to a threshold, and not from
        the future.
        """
        if statement.log != self._origin:
            raise Ignored("other-log", f"made for the log {statement.log}")
        state = self._state
        if state.had_effect(statement.statement_id):
            raise Ignored("replay", "the same statement had effect before")
        powers = find_powers(state, statement, index)
        signers = check_signatures(powers, state, statement.service, envelope, self._verify)
        roles = met_roles(powers, signers, ts)
        if statement.issued.timestamp() > ts + MAX_AHEAD_SECONDS:
            raise Ignored("issued-in-future", f"issued more than {MAX_AHEAD_SECONDS} s after log time")
        return Entry(index, statement.statement_id, signers, roles, ts)


def _ignored(index: int, statement: Statement, reason: Ignored) -> Outcome:
    return Outcome(index, statement.kind, statement.statement_id, False, reason.code, reason.detail)


def _effect(state: Known, entry: Entry, statement: Statement) -> Effect:
    """Decide an authenticated statement, in the order of the specification: its sequence is next, its own
    deadline has not passed, then the rule of its kind.
    """
    _check_sequence(state, statement)
    _check_deadline(statement, entry.ts)
    predicate = statement.predicate
    if isinstance(predicate, Delegation):
        return delegate(state, entry, predicate)
    if isinstance(predicate, Release | ReleaseClaim):
        return release(state, entry, predicate.claim if isinstance(predicate, Release) else predicate)
    if isinstance(predicate, Rebuild):
        return rebuild(state, entry, predicate)
    if isinstance(predicate, Revocation):
        return revoke(state, entry, predicate)
    assert isinstance(predicate, TCBFloor)
    return set_floor(state, entry, predicate)


def _check_sequence(state: Known, statement: Statement) -> None:
    last = state.sequence(statement.service, statement.kind)
    found = statement.sequence
    if found <= last or (statement.kind == "delegation" and found != last + 1):
        raise Ignored("sequence", f"sequence is {found}, the last effective one is {last}")
    # Whoever may take one step must not be able to use up all numbers with it.
    if found - last > MAX_SEQUENCE_STEP:
        raise Ignored("sequence-jump", f"sequence is {found}, at most {last + MAX_SEQUENCE_STEP} can follow")


def _check_deadline(statement: Statement, ts: int) -> None:
    predicate = statement.predicate
    if isinstance(predicate, Release | ReleaseClaim):
        deadline = predicate.not_after
    elif isinstance(predicate, Delegation | TCBFloor):
        deadline = predicate.expires
    elif isinstance(predicate, Revocation) and predicate.suspend_until is not None:
        deadline = predicate.suspend_until
    else:
        return
    if deadline.timestamp() <= ts:
        raise Ignored("expired", "its own deadline has passed at log time")
