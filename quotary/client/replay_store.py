"""What an auditor keeps of a log between two runs: an SQLite file of his own (0600), one writer at a time.

Frontier, newest state entry, the trie's nodes, the entries that had effect and those whose interval is still
open. All of one batch lands in one transaction, so that a crash leaves the audit where a batch ended. F1's
state is written at the end of a run that grew the log enough; entries that had effect since then are fed
to it again.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from quotary.errors import CannotTell, Malformed
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.frontier import Frontier

VERSION = 1
MAX_FRESH = 1 << 14
CACHE_KIB = 1 << 16

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (hash BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS effective
  (entry_index INTEGER PRIMARY KEY, ts INTEGER NOT NULL, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS orders (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
"""


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
    """One log's audit; also the ``NodeStore`` of its trie. Use as a context manager."""

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
        self._fresh: dict[bytes, bytes] = {}
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
        """Keep how far this run came."""
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
        """Land everything inside, or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._flush()
        except BaseException:
            self._fresh.clear()
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def get(self, node_hash: bytes) -> bytes:
        if (fresh := self._fresh.get(node_hash)) is not None:
            return fresh
        row = self._database.execute("SELECT data FROM nodes WHERE hash = ?", (node_hash,)).fetchone()
        if row is None:
            raise Malformed(f"the audit store {self.path} lacks a trie node: remove it and audit again")
        return bytes(row[0])

    def get_all(self, node_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {node_hash: self.get(node_hash) for node_hash in node_hashes}

    def put(self, node_hash: bytes, data: bytes) -> None:
        self._fresh[node_hash] = data
        if len(self._fresh) >= MAX_FRESH:
            self._flush()

    def wait(self, index: int, entry: bytes) -> None:
        """Keep an entry until its state entry comes."""
        self._database.execute("INSERT INTO waiting VALUES (?, ?)", (index, entry))

    def waiting(self, limit: int = -1) -> Iterator[tuple[int, bytes]]:
        """Give the entries of the open interval, one at a time."""
        rows = self._database.execute("SELECT * FROM waiting ORDER BY entry_index LIMIT ?", (limit,))
        for index, entry in rows:
            yield index, bytes(entry)

    def settle(self, effective: set[int], ts: int) -> None:
        """End the interval: of its entries, those with effect are kept for F1."""
        self._database.executemany(
            "INSERT INTO effective SELECT entry_index, ?, entry FROM waiting WHERE entry_index = ?",
            [(ts, index) for index in sorted(effective)],
        )
        self._database.execute("DELETE FROM waiting")

    def obey(self, index: int, order: bytes) -> None:
        """Keep an order of the roots."""
        self._database.execute("INSERT INTO orders VALUES (?, ?)", (index, order))

    def orders(self) -> tuple[tuple[int, bytes], ...]:
        """Give the orders so far, each with its index."""
        rows = self._database.execute("SELECT * FROM orders ORDER BY entry_index")
        return tuple((index, bytes(entry)) for index, entry in rows)

    def remember(self, f1: bytes, progress: Progress) -> None:
        """Keep F1's state at the end of a run, with the size and the map root that it belongs to."""
        head = progress.frontier.size.to_bytes(8) + progress.map_root
        self.keep("f1", head + f1)

    def remembered_size(self) -> int:
        """Say to which size F1's state is kept; 0 for none."""
        row = self._database.execute("SELECT substr(value, 1, 8) FROM facts WHERE name = 'f1'").fetchone()
        return 0 if row is None else int.from_bytes(row[0])

    def remembered(self, progress: Progress) -> bytes | None:
        """Read F1's state; ``Malformed`` where it does not belong to ``progress``."""
        found = self.fact("f1")
        if found is None:
            return None
        size, root = int.from_bytes(found[:8]), found[8:40]
        if size > progress.frontier.size or (size == progress.frontier.size and root != progress.map_root):
            raise Malformed(f"the audit store {self.path} is damaged: remove it and audit again")
        return found[40:]

    def effective(self, index: int) -> bytes:
        """Read an entry that had effect."""
        query = "SELECT entry FROM effective WHERE entry_index = ?"
        row = self._database.execute(query, (index,)).fetchone()
        if row is None:
            raise Malformed(f"the audit store {self.path} lacks entry {index}: remove it and audit again")
        return bytes(row[0])

    def intervals(self, start: int) -> Iterator[tuple[int, Iterator[tuple[int, bytes]]]]:
        """Give the entries that had effect, from an index on, each with the log time of its interval."""
        query = "SELECT entry_index, ts, entry FROM effective WHERE entry_index >= ? ORDER BY entry_index"
        rows = self._database.execute(query, (start,))
        for index, ts, entry in rows:
            yield ts, iter([(index, bytes(entry))])

    def _flush(self) -> None:
        """Write the nodes of this transaction, in the order in which they lie on disk."""
        self._database.executemany("INSERT OR IGNORE INTO nodes VALUES (?, ?)", sorted(self._fresh.items()))
        self._fresh.clear()

    def _begin(self, origin: str) -> None:
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.executescript(_SCHEMA)
        known = self.fact("origin")
        if known is None:
            self.keep("origin", origin.encode())
            self.keep("version", str(VERSION).encode())
        elif known != origin.encode() or self.fact("version") != str(VERSION).encode():
            raise Malformed(f"{self.path} is the audit of {known.decode()}, not of {origin}")
