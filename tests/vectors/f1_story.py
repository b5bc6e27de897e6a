"""A small log in the making, of which each entry is noted with what it should do: what ``make_f1`` tells."""

import hashlib
from datetime import timedelta

from quotary.canonical import b64
from quotary.statements.f1 import F1
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from tests.fakes.authority import NOW, ORIGIN, TS, Authority

OK = "effective"


class Story:
    """A log in the making: its entries, and beside each what it should do."""

    def __init__(self, about: str, begin: bool = True) -> None:
        self.about = about
        self.by = Authority()
        self.log: list[bytes] = []
        self.notes: list[tuple[int, str, str]] = []
        self.closings: list[dict[str, object]] = []
        self.outcomes: list[dict[str, object]] = []
        self.ts = TS
        self._f1 = F1(ORIGIN)
        self._open: list[tuple[int, bytes, str]] = []
        self._nodes = trie.MemoryStore()
        self._root = trie.EMPTY
        self._prev: int | None = None
        if begin:
            self.add(self.by.genesis(), OK, "the genesis")
            self.add(self.by.allocation(), OK, "the roots allocate the service")
            self.add(self.by.delegation(), OK, "the owners name a builder")

    def add(self, entry: bytes, code: str, note: str) -> bytes:
        self._open.append((len(self.log), entry, code))
        self.notes.append((len(self.log), code, note))
        self.log.append(entry)
        return entry

    def skip(self, entry: bytes) -> None:
        """Add a reserved record."""
        self._open.append((len(self.log), entry, ""))
        self.log.append(entry)

    def at(self, **later: float) -> None:
        """Set log time, and the makers' clocks, so long after the beginning; closes what is open."""
        if self._open:
            self.close()
        self.by.now = NOW + timedelta(**later)
        self.ts = int(self.by.now.timestamp())

    def close(self) -> None:
        """Close the interval and append the state entry."""
        closed = self._f1.close([(index, entry) for index, entry, _ in self._open], self.ts)
        wanted = [(index, code) for index, _, code in self._open if code]
        found = [(outcome.index, outcome.code) for outcome in closed.outcomes]
        assert found == wanted, (
            self.about,
            [pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1]],
        )
        self.outcomes += [
            {
                "index": outcome.index,
                "kind": outcome.kind,
                "statement_id": outcome.statement_id,
                "effect": outcome.effect,
                "code": outcome.code,
            }
            for outcome in closed.outcomes
        ]
        values = {name: hashlib.sha256(record).digest() for name, record in closed.changes.items()}
        self._root = trie.update(self._nodes, self._root, values)
        state = StateEntry(len(self.log), {"F1": self._root}, self.ts, self._prev)
        self._prev = state.index
        self.log.append(state.encode())
        self.closings.append(
            {
                "state": state.index,
                "ts": self.ts,
                "root": self._root.hex(),
                "records": {name.hex(): record.decode() for name, record in sorted(closed.changes.items())},
            }
        )
        self._open = []

    def document(self) -> dict[str, object]:
        if self._open:
            self.close()
        return {
            "about": self.about,
            "origin": ORIGIN,
            "log": [b64(entry) for entry in self.log],
            "notes": {str(index): note for index, _, note in self.notes},
            "outcomes": self.outcomes,
            "closings": self.closings,
        }
