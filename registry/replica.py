"""F1 one step ahead of the database, for admission: what would it make of a new entry now?

It costs only what waits and matters: the log's own state is read as it is needed, as of its newest state
entry. A release changes nothing for another service, so those that wait are put aside until somebody asks
about theirs; of what else waits, everything may depend on.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from quotary.statements.envelope import Signature, verify
from quotary.statements.f1 import F1
from quotary.statements.opened import Opened, open_entry
from quotary.statements.outcome import Outcome
from quotary.statements.state import Changes, State
from quotary.statements.state_entry import is_reserved
from quotary.tlog.merkle import leaf_hash
from registry.glance import released_service
from registry.orders import ended, ending
from registry.store import EMPTY_HEAD, Head, Reader, States, StoredState, Waiting
from registry.store.state import Kept

MAX_AHEAD = 16_384
KEPT_ENTRIES = 8192
ASIDE_BYTES = 16 << 20


Verdict = tuple[Outcome, tuple[bytes, ...]]
"""What would become of an entry, and the public keys (32 bytes) under which its signatures hold; there is one
for each signature of what is admissible.
"""


class Replica:
    """What F1 would make of a new entry now, counting those that wait; shared by a worker's threads."""

    def __init__(self, origin: str, read: Reader) -> None:
        self._read = read
        self._origin = origin
        self._states = States(read)
        self._lock = threading.Lock()
        self._opened: Kept[bytes, Opened] = Kept(KEPT_ENTRIES)
        self._ahead = self._begin(EMPTY_HEAD)
        self._trial: _Trial | None = None
        self._ended = ended(read, read.head())

    @property
    def ended(self) -> str | None:
        """Say by which order the log has ended, or will have when what waits is logged."""
        return self._ended

    def judge(self, entries: Mapping[bytes, Opened], ts: int) -> dict[bytes, Verdict]:
        """Say of each entry, by leaf hash, what would become of it if it were appended next, those before it
        included.
        """
        with self._lock:
            ahead = self._caught_up(ts)
            self._take(ahead.aside.out(_asked(entries.values())), ts)
            self._opened.fill(entries)
            _warm(ahead, entries.values())
            trial, keys = State(ahead.state), _Keys()
            f1 = F1(self._origin, trial, ahead.next_index, keys.verify)
            found = {name: (f1.admit(entry, ts), keys.taken()) for name, entry in entries.items()}
            admitted = tuple(name for name, (outcome, _) in found.items() if outcome.admissible)
            self._trial = _Trial(ahead, admitted, trial.new)
            return found

    def _caught_up(self, ts: int) -> "_Ahead":
        """Take over what waits, on the newest state entry where nothing that was taken waits any more."""
        head = self._read.head() or EMPTY_HEAD
        if head.size != self._ahead.size:
            oldest = self._read.waiting(1)
            if not oldest or oldest[0].id > self._ahead.last_id or self._ahead.taken > MAX_AHEAD:
                self._ahead = self._begin(head)
                # Entries without a state entry of their own: a sequencer stopped between two transactions.
                left = self._read.entries(head.state_index + 1, head.size)
                self._take([Waiting(0, leaf_hash(entry), entry) for entry in left], ts)
            self._ahead.size = head.size
            self._ended = self._ended or ended(self._read, head)
        self._adopt()
        if rows := self._read.waiting_after(self._ahead.last_id, MAX_AHEAD):
            self._see(rows, ts)
        return self._ahead

    def _adopt(self) -> None:
        """Go on from the newest trial, where just what it admitted waits behind what was taken before it."""
        trial, ahead = self._trial, self._ahead
        self._trial = None
        if trial is None or trial.ahead is not ahead or not trial.admitted:
            return
        rows = self._read.waiting_names(ahead.last_id, len(trial.admitted) + 1)
        if tuple(name for _, name in rows) == trial.admitted:
            ahead.state.new.add(trial.changes)
            ahead.last_id = rows[-1][0]
            ahead.next_index += len(rows)
            ahead.taken += len(rows)

    def _see(self, rows: Sequence[Waiting], ts: int) -> None:
        ahead = self._ahead
        plain = True
        for row in rows:
            service = released_service(row.data)
            plain = plain and service is not None
            ahead.aside.put(service or "", row)
            self._ended = self._ended or ending(self._read, self._origin, row.data, ts)
        if not plain or ahead.aside.length > ASIDE_BYTES:
            self._take(ahead.aside.out(None), ts)
        ahead.last_id = rows[-1].id
        ahead.taken += len(rows)

    def _begin(self, head: Head) -> "_Ahead":
        first = head.state_index + 1
        known = self._states.at(first)
        return _Ahead(known, State(known), head.size, first)

    def _take(self, rows: Sequence[Waiting], ts: int) -> None:
        """Go on as if entries were logged; one that this worker judged itself is opened already."""
        ahead = self._ahead
        opened = [
            self._opened.get(row.leaf_hash, partial(open_entry, row.data))
            for row in rows
            if not is_reserved(row.data)
        ]
        _warm(ahead, opened)
        f1 = F1(self._origin, ahead.state, ahead.next_index, _admitted)
        for item in opened:
            f1.admit(item, ts)
        ahead.next_index += len(rows)


@dataclass(slots=True)
class _Aside:
    """What was read and not judged yet, by the service of the release that it is; else under ``""``."""

    rows: dict[str, list[Waiting]] = field(default_factory=dict)
    length: int = 0

    def put(self, service: str, row: Waiting) -> None:
        self.rows.setdefault(service, []).append(row)
        self.length += len(row.data)

    def out(self, services: Iterable[str] | None) -> list[Waiting]:
        """Take out what concerns these services, or everything, in the order of its arrival."""
        names = list(self.rows) if services is None else services
        found = [row for name in names for row in self.rows.pop(name, ())]
        self.length -= sum(len(row.data) for row in found)
        return sorted(found, key=lambda row: row.id)


@dataclass(slots=True)
class _Ahead:
    """F1 as if everything that waits were logged already.

    It goes on while entries that it took are logged, so its indices may fall behind by the state entries
    between them; nobody but admission asks it.

    known:   what it stands on; state: with what was taken; size: of the log when it was looked at last
    aside:   what was read and does not concern anybody who asked since
    last_id: of the newest ``pending`` row that was read; taken: how many were
    """

    known: StoredState
    state: State
    size: int
    next_index: int
    aside: _Aside = field(default_factory=_Aside)
    last_id: int = 0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class _Trial:
    """What a judgement would change if all that it found admissible were appended in its order."""

    ahead: _Ahead
    admitted: tuple[bytes, ...]
    changes: Changes


class _Keys:
    """Verifies signatures, and remembers by which keys."""

    def __init__(self) -> None:
        self._found: list[bytes] = []

    def verify(self, key: bytes, signature: Signature, payload: bytes) -> None:
        verify(key, signature, payload)
        self._found.append(key)

    def taken(self) -> tuple[bytes, ...]:
        """Give those of the entry that was judged last."""
        found, self._found = tuple(self._found), []
        return found


def _asked(entries: Iterable[Opened]) -> set[str] | None:
    """Give the services that some releases are of; None where there is something else among them."""
    statements = [entry.statement for entry in entries]
    if not all(found is not None and found.kind == "release" for found in statements):
        return None
    return {found.service for found in statements if found is not None}


def _warm(ahead: _Ahead, entries: Iterable[Opened]) -> None:
    ahead.known.warm([entry.statement for entry in entries if entry.statement])


def _admitted(_public_key: bytes, _signature: Signature, _payload: bytes) -> None:
    """Believe a signature of what waits: the worker that let it in verified it, and the sequencer will."""
