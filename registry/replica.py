"""F1 one step ahead of the database, for admission: what would it make of a new entry now?

It costs only what waits: the log's own state is read as it is needed, as of its newest state entry.
"""

import threading
from collections.abc import Sequence

from quotary.statements.f1 import F1
from quotary.statements.opened import Opened
from quotary.statements.outcome import Outcome
from quotary.statements.state import State
from registry.batch import open_all
from registry.orders import ended, ending
from registry.store import EMPTY_HEAD, Reader, States, StoredState

MAX_AHEAD = 16_384


class Replica:
    """What F1 would make of a new entry now, counting those that wait; shared by a worker's threads."""

    def __init__(self, origin: str, read: Reader) -> None:
        self._read = read
        self._origin = origin
        self._states = States(read)
        self._lock = threading.Lock()
        self._ahead = _Ahead(origin, self._states.at(0), 0, 0)
        self._ended = ended(read, read.head())

    @property
    def ended(self) -> str | None:
        """Say by which order the log has ended, or will have when what waits is logged."""
        return self._ended

    def judge(self, entries: Sequence[Opened], ts: int) -> list[Outcome]:
        """Give the outcome of each entry as if it were appended next, those before it included."""
        with self._lock:
            ahead = self._caught_up(ts)
            if len(entries) == 1:
                return [ahead.f1.consider(entries[0], ts)]
            ahead.known.warm([entry.statement for entry in entries if entry.statement])
            trial = ahead.f1.copy()
            return [trial.admit(entry, ts) for entry in entries]

    def _caught_up(self, ts: int) -> "_Ahead":
        """Take over what waits; begin anew where the log has grown."""
        head = self._read.head() or EMPTY_HEAD
        if head.size != self._ahead.size:
            first = head.state_index + 1
            self._ahead = _Ahead(self._origin, self._states.at(first), first, head.size)
            # Entries without a state entry of their own: a sequencer stopped between two transactions.
            self._ahead.take(self._read.entries(first, head.size), ts)
            self._ended = self._ended or ended(self._read, head)
        for row in self._read.waiting_after(self._ahead.last_id, MAX_AHEAD):
            self._ahead.take([row.data], ts)
            self._ended = self._ended or ending(self._read, self._origin, row.data, ts)
            self._ahead.last_id = row.id
        return self._ahead


class _Ahead:
    """F1 as if everything that waits were logged already.

    known:   the state that it stands on; size: of the log when it began
    last_id: of the newest ``pending`` row that was taken
    """

    def __init__(self, origin: str, known: StoredState, first: int, size: int) -> None:
        self.known = known
        self.f1 = F1(origin, State(known), first)
        self.size = size
        self.last_id = 0
        self._next = first

    def take(self, entries: Sequence[bytes], ts: int) -> None:
        self.f1.decide(open_all(entries, self._next).items(), ts)
        self._next += len(entries)
