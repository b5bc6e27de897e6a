"""F1 one step ahead of the database, for admission: what would it make of a new entry now?

It costs only what waits: the log's own state is read as it is needed, as of its newest state entry.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from quotary.statements.envelope import Signature
from quotary.statements.f1 import F1
from quotary.statements.opened import Opened, open_entry
from quotary.statements.outcome import Outcome
from quotary.statements.state import State
from quotary.statements.state_entry import is_reserved
from quotary.tlog.merkle import leaf_hash
from registry.orders import ended, ending
from registry.store import EMPTY_HEAD, Head, Reader, States, StoredState
from registry.store.state import Kept

MAX_AHEAD = 16_384
KEPT_ENTRIES = 8192


class Replica:
    """What F1 would make of a new entry now, counting those that wait; shared by a worker's threads."""

    def __init__(self, origin: str, read: Reader) -> None:
        self._read = read
        self._origin = origin
        self._states = States(read)
        self._lock = threading.Lock()
        self._opened: Kept[bytes, Opened] = Kept(KEPT_ENTRIES)
        self._ahead = self._begin(EMPTY_HEAD)
        self._ended = ended(read, read.head())

    @property
    def ended(self) -> str | None:
        """Say by which order the log has ended, or will have when what waits is logged."""
        return self._ended

    def judge(self, entries: Mapping[bytes, Opened], ts: int) -> dict[bytes, Outcome]:
        """Give the outcome of each entry, by leaf hash, as if it were appended next, those before it
        included.
        """
        with self._lock:
            ahead = self._caught_up(ts)
            self._opened.fill(entries)
            _warm(ahead, entries.values())
            trial = F1(self._origin, State(ahead.state), ahead.next_index)
            return {name: trial.admit(entry, ts) for name, entry in entries.items()}

    def _caught_up(self, ts: int) -> "_Ahead":
        """Take over what waits, on the newest state entry where nothing that was taken waits any more."""
        head = self._read.head() or EMPTY_HEAD
        if head.size != self._ahead.size:
            oldest = self._read.waiting(1)
            if not oldest or oldest[0].id > self._ahead.last_id or self._ahead.taken > MAX_AHEAD:
                self._ahead = self._begin(head)
                # Entries without a state entry of their own: a sequencer stopped between two transactions.
                left = self._read.entries(head.state_index + 1, head.size)
                self._take([(leaf_hash(entry), entry) for entry in left], ts)
            self._ahead.size = head.size
            self._ended = self._ended or ended(self._read, head)
        if rows := self._read.waiting_after(self._ahead.last_id, MAX_AHEAD):
            self._take([(row.leaf_hash, row.data) for row in rows], ts)
            for row in rows:
                self._ended = self._ended or ending(self._read, self._origin, row.data, ts)
            self._ahead.last_id = rows[-1].id
        return self._ahead

    def _begin(self, head: Head) -> "_Ahead":
        first = head.state_index + 1
        known = self._states.at(first)
        return _Ahead(known, State(known), head.size, first)

    def _take(self, entries: Sequence[tuple[bytes, bytes]], ts: int) -> None:
        """Go on as if entries were logged; one that this worker judged itself is opened already."""
        ahead = self._ahead
        opened = [
            self._opened.get(name, partial(open_entry, entry))
            for name, entry in entries
            if not is_reserved(entry)
        ]
        _warm(ahead, opened)
        f1 = F1(self._origin, ahead.state, ahead.next_index, _admitted)
        for item in opened:
            f1.admit(item, ts)
        ahead.next_index += len(entries)
        ahead.taken += len(entries)


@dataclass(slots=True)
class _Ahead:
    """F1 as if everything that waits were logged already.

    It goes on while entries that it took are logged, so its indices may fall behind by the state entries
    between them; nobody but admission asks it.

    known:   what it stands on; state: with what was taken; size: of the log when it was looked at last
    last_id: of the newest ``pending`` row that was taken; taken: how many were
    """

    known: StoredState
    state: State
    size: int
    next_index: int
    last_id: int = 0
    taken: int = 0


def _warm(ahead: _Ahead, entries: Iterable[Opened]) -> None:
    ahead.known.warm([entry.statement for entry in entries if entry.statement])


def _admitted(_public_key: bytes, _signature: Signature, _payload: bytes) -> None:
    """Believe a signature of what waits: the worker that let it in verified it, and the sequencer will."""
