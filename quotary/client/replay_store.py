"""What an auditor keeps of a log between two runs: an SQLite file of his own (0600), one writer at a time.

Frontier, newest state entry, F1's state (``client.replay_state``), and the entries whose interval is still
open. What belongs together lands in one transaction, at the latest when an interval or a run ends, so that
a crash leaves the audit where a batch ended.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from quotary.client.outbox import SCHEMA as OUTBOX
from quotary.client.outbox import Outbox
from quotary.client.replay_state import SCHEMA, StoredState
from quotary.errors import CannotTell, Malformed
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.frontier import Frontier

VERSION = 3
MAX_WAITING = 1 << 24
CACHE_KIB = 1 << 16

_FACTS = "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS orders (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
"""
# The tables of versions 1 and 2, but for the facts.
_OLDER = (
    *("nodes", "waiting", "effective", "orders", "records", "holders", "releases", "denied"),
    *("sequences", "marks", "delegations"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay came.

    state:    the newest state entry, None before the first
    map_root: 32 bytes, derived here
    states:   number of state entries; outcomes: number of entries by F1's code
    """

    frontier: Frontier = field(default_factory=Frontier)
    state: StateEntry | None = None
    map_root: bytes = trie.EMPTY
    states: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)

    def grown(self, frontier: Frontier) -> "Progress":
        """Take over a larger tree."""
        return replace(self, frontier=frontier)

    def closed(self, state: StateEntry, map_root: bytes, counts: Mapping[str, int]) -> "Progress":
        """End an interval."""
        codes = sorted({*self.outcomes, *counts})
        outcomes = {code: self.outcomes.get(code, 0) + counts.get(code, 0) for code in codes}
        return replace(self, state=state, map_root=map_root, states=self.states + 1, outcomes=outcomes)


class ReplayStore:
    """One log's audit. Use as a context manager."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.path = folder / "audit.db"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "audit.lock", os.O_RDWR | os.O_CREAT, 0o600)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise CannotTell(f"cannot write the audit store {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise CannotTell(f"another audit uses {folder}", next_command="name another --store") from error
        self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._open: dict[int, bytes] = {}
        self._length = 0
        try:
            self._begin(origin)
        except sqlite3.DatabaseError as error:
            self.close()
            raise Malformed(f"{self.path} is damaged: remove it and audit again") from error
        except Malformed:
            self.close()
            raise

    def __enter__(self) -> "ReplayStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let the next audit in."""
        self._database.close()
        os.close(self._lock)

    def progress(self) -> Progress:
        """Read how far the last run came."""
        found = self.fact("progress")
        if found is None:
            return Progress()
        value = json.loads(found)
        state = value["state"]
        return Progress(
            Frontier.parse(bytes.fromhex(value["frontier"])),
            None if state is None else StateEntry.parse(state.encode()),
            bytes.fromhex(value["map_root"]),
            value["states"],
            value["outcomes"],
        )

    def save(self, progress: Progress) -> None:
        """Keep how far this run came, with the entries that wait."""
        self._database.executemany("INSERT INTO waiting VALUES (?, ?)", self._open.items())
        self._open, self._length = {}, 0
        document = {
            "frontier": bytes(progress.frontier).hex(),
            "state": None if progress.state is None else progress.state.encode().decode(),
            "map_root": progress.map_root.hex(),
            "states": progress.states,
            "outcomes": dict(progress.outcomes),
        }
        self.keep("progress", json.dumps(document).encode())

    def fact(self, name: str) -> bytes | None:
        """Read what was kept under a name."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep(self, name: str, value: bytes) -> None:
        """Keep a value under a name."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Land everything inside, or nothing; then entries that wait only in memory are forgotten, too."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._open, self._length = {}, 0
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def wait(self, index: int, entry: bytes) -> None:
        """Keep an entry until its state entry comes; ``save`` brings it to disk."""
        self._open[index] = entry
        self._length += len(entry)

    @property
    def is_full(self) -> bool:
        """Say whether more of the open interval waits in memory than should."""
        return self._length > MAX_WAITING

    def waiting(self, limit: int = -1) -> Iterator[tuple[int, bytes]]:
        """Give the entries of the open interval, one at a time."""
        rows = self._database.execute("SELECT * FROM waiting ORDER BY entry_index LIMIT ?", (limit,))
        for number, item in enumerate(chain(rows, self._open.items())):
            if number == limit:
                return
            yield item

    def waited(self, index: int) -> bytes:
        """Give one of them."""
        if index in self._open:
            return self._open[index]
        row = self._database.execute("SELECT entry FROM waiting WHERE entry_index = ?", (index,)).fetchone()
        return bytes(row[0])

    def settle(self) -> None:
        """End the interval."""
        self._database.execute("DELETE FROM waiting")
        self._open, self._length = {}, 0

    def obey(self, index: int, order: bytes) -> None:
        """Keep an order of the roots."""
        self._database.execute("INSERT INTO orders VALUES (?, ?)", (index, order))

    def orders(self) -> tuple[tuple[int, bytes], ...]:
        """Give the orders so far, each with its index."""
        rows = self._database.execute("SELECT * FROM orders ORDER BY entry_index")
        return tuple((index, bytes(entry)) for index, entry in rows)

    def state(self) -> StoredState:
        """Give F1's state as of the newest state entry."""
        return StoredState(self._database, self.path)

    def outbox(self) -> Outbox:
        """Give the alerts of the monitor whose store this is."""
        return Outbox(self._database, self.fact, self.keep)

    def _begin(self, origin: str) -> None:
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute(_FACTS)
        known = self.fact("origin")
        if known == origin.encode() and self.fact("version") in (b"1", b"2"):
            self._renew()
        self._database.executescript(_SCHEMA + SCHEMA + OUTBOX)
        if known is None:
            self.keep("origin", origin.encode())
            self.keep("version", str(VERSION).encode())
        elif known != origin.encode() or self.fact("version") != str(VERSION).encode():
            raise Malformed(f"{self.path} is the audit of {known.decode()}, not of {origin}")

    def _renew(self) -> None:
        """Begin again at entry 0: what older versions wrote of F1 is not read, but checkpoints stay known."""
        with self.transaction():
            for table in _OLDER:
                self._database.execute(f"DROP TABLE IF EXISTS {table}")
            self._database.execute("DELETE FROM facts WHERE name IN ('progress', 'f1')")
            self.keep("version", str(VERSION).encode())
