"""F1 beside the database: replayed from the log's entries, and one step ahead of them for admission."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quotary.statements.f1 import F1, Closed
from quotary.statements.outcome import Outcome
from quotary.statements.state_entry import state_of
from registry.orders import ended, ending
from registry.store import Reader

CHUNK = 2048
MAX_AHEAD = 16_384


class Follower:
    """Feeds entries to F1 in log order and closes an interval at each state entry.

    size: entries fed so far; waiting: those since the newest state entry, with their indices
    """

    def __init__(self, origin: str) -> None:
        self.f1 = F1(origin)
        self.size = 0
        self.waiting: list[tuple[int, bytes]] = []

    def feed(self, entry: bytes) -> None:
        """Take the next entry; a state entry closes its interval."""
        state = state_of(entry)
        if state is None:
            self.waiting.append((self.size, entry))
            self.size += 1
        else:
            self.close(state.ts)

    def close(self, ts: int) -> Closed:
        """Close the interval at log time ``ts``, count the state entry, and give what changed."""
        closed = self.f1.close(self.waiting, ts)
        self.waiting = []
        self.size += 1
        return closed

    def catch_up(self, read: Reader, size: int) -> None:
        """Read entries up to ``size``."""
        while self.size < size:
            entries = read.entries(self.size, min(self.size + CHUNK, size))
            assert entries, "the database lost entries that its head counts"
            for entry in entries:
                self.feed(entry)


@dataclass(slots=True)
class _Ahead:
    """F1 as if everything that waits were logged already.

    next_index: where the next entry would stand; last_id: of the newest ``pending`` row that was taken
    """

    f1: F1
    next_index: int
    last_id: int = 0

    def take(self, entries: Iterable[bytes], ts: int) -> None:
        numbered = list(enumerate(entries, self.next_index))
        self.f1.close(numbered, ts)
        self.next_index += len(numbered)


class Replica:
    """What F1 would make of a new entry now, counting those that wait; shared by a worker's threads."""

    def __init__(self, follower: Follower, read: Reader) -> None:
        self._read = read
        self._follower = follower
        self._ahead = _Ahead(self._follower.f1.copy(), follower.size)
        self._lock = threading.Lock()
        self._ended = ended(read, read.head())

    @property
    def ended(self) -> str | None:
        """Say by which order the log has ended, or will have when what waits is logged."""
        return self._ended

    def judge(self, entries: Sequence[bytes], ts: int) -> list[Outcome]:
        """Give the outcome of each entry as if it were appended next, those before it included."""
        with self._lock:
            self._catch_up(ts)
            if len(entries) == 1:
                return [self._ahead.f1.would(entries[0], ts)]
            trial = _Ahead(self._ahead.f1.copy(), self._ahead.next_index)
            found = []
            for entry in entries:
                found.append(trial.f1.would(entry, ts))
                if found[-1].admissible:
                    trial.take([entry], ts)
            return found

    def _catch_up(self, ts: int) -> None:
        """Replay what is logged, then what waits; the copy is made anew only when the log has grown."""
        head = self._read.head()
        size = head.size if head else 0
        if size > self._follower.size:
            self._follower.catch_up(self._read, size)
            self._ahead = _Ahead(self._follower.f1.copy(), size)
            self._ahead.f1.close(self._follower.waiting, ts)
            self._ended = self._ended or ended(self._read, head)
        for row in self._read.waiting_after(self._ahead.last_id, MAX_AHEAD):
            self._ahead.take([row.data], ts)
            self._ended = self._ended or ending(self._read, self._ahead.f1.origin, row.data, ts)
            self._ahead.last_id = row.id
