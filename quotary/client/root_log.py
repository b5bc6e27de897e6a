"""Logging an enclave's receipt roots each minute, by a process of whoever operates the service
(docs/formats/receipt.md, "Roots").

What the enclave closed is written down before anything else happens, and so is each signed statement before
it is sent. So a log that is away, for minutes or days, an enclave that restarts, and a process that dies
between two steps lose no root that was seen, and the same statement is sent again, byte for byte.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import time_text
from quotary.client.clock import Clock
from quotary.client.log import LogClient
from quotary.client.receipt_root import KIND, MAX_ANSWER, ReceiptRoot, parse_roots
from quotary.client.submit import submit
from quotary.errors import CannotTell, QuotaryError
from quotary.net.transport import Limits, Request, Transport
from quotary.statements.envelope import Signer, sign
from quotary.statements.notice import MAX_ITEMS
from quotary.statements.schema import statement_payload

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, data BLOB NOT NULL, place INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS roots (
  root BLOB PRIMARY KEY, first INTEGER NOT NULL, size INTEGER NOT NULL, entry INTEGER REFERENCES entries
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Logged:
    """A statement that the log took: its index, and how many roots it names."""

    index: int
    roots: int


@dataclass(frozen=True, slots=True)
class Round:
    """What one look did. waiting: roots that are not logged yet; errors: what stood in the way."""

    seen: int
    logged: tuple[Logged, ...]
    waiting: int
    errors: tuple[QuotaryError, ...]


class RootBook:
    """Which roots were seen, and which statements name them; a file of this process alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._open()) as database:
            database.executescript(_TABLES)

    def take(self, roots: Iterable[ReceiptRoot]) -> int:
        """Write down roots; gives how many were new."""
        rows = [(root.root, root.first, root.size) for root in roots]
        with closing(self._open()) as database, database:
            before = database.total_changes
            database.executemany("INSERT OR IGNORE INTO roots (root, first, size) VALUES (?, ?, ?)", rows)
            return database.total_changes - before

    def waiting(self) -> tuple[ReceiptRoot, ...]:
        """Give the oldest roots that no statement names, as many as go into one: no two of one name."""
        query = "SELECT min(rowid), root, first, size FROM roots WHERE entry IS NULL GROUP BY first"
        with closing(self._open()) as database:
            rows = database.execute(f"{query} ORDER BY 1 LIMIT ?", (MAX_ITEMS,)).fetchall()
        return tuple(ReceiptRoot(first, size, root) for _, root, first, size in rows)

    def count_unlogged(self) -> int:
        """Count the roots that no published entry names."""
        query = "SELECT count(*) FROM roots LEFT JOIN entries ON entry = id WHERE place IS NULL"
        with closing(self._open()) as database:
            return int(database.execute(query).fetchone()[0])

    def unsent(self) -> tuple[int, bytes] | None:
        """Give the statement that the log has not taken yet, if there is one."""
        with closing(self._open()) as database:
            row = database.execute("SELECT id, data FROM entries WHERE place IS NULL").fetchone()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def keep(self, entry: bytes, roots: Sequence[ReceiptRoot]) -> None:
        """Write down a signed statement before it is sent."""
        with closing(self._open()) as database, database:
            number = database.execute("INSERT INTO entries (data) VALUES (?)", (entry,)).lastrowid
            rows = [(number, root.root) for root in roots]
            database.executemany("UPDATE roots SET entry = ? WHERE root = ?", rows)

    def next_sequence(self) -> int:
        """Give the number of the next statement; a log does not look at the numbers of notices."""
        with closing(self._open()) as database:
            return int(database.execute("SELECT coalesce(max(id), 0) + 1 FROM entries").fetchone()[0])

    def logged(self, number: int, index: int) -> int:
        """Write down where the log has a statement; gives how many roots it names."""
        with closing(self._open()) as database, database:
            database.execute("UPDATE entries SET place = ? WHERE id = ?", (index, number))
            found = database.execute("SELECT count(*) FROM roots WHERE entry = ?", (number,)).fetchone()
            return int(found[0])

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self._path, timeout=10)
            database.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise CannotTell(f"the book of roots {self._path} cannot be opened: {error}") from error
        return database


@dataclass(frozen=True, slots=True)
class RootLogger:
    """Takes roots from one enclave to one log.

    url: of the enclave; service: whose role ``receipt-root`` the key has
    """

    url: str
    transport: Transport
    log: LogClient
    book: RootBook
    origin: str
    service: str
    key: Signer
    clock: Clock

    def round(self) -> Round:
        """Ask the enclave, then log what waits; neither stands in the way of the other."""
        seen, errors = 0, list[QuotaryError]()
        try:
            seen = self.book.take(self._closed())
        except QuotaryError as error:
            errors.append(error)
        logged = []
        try:
            while (sent := self._send()) is not None:
                logged.append(sent)
        except QuotaryError as error:
            errors.append(error)
        return Round(seen, tuple(logged), self.book.count_unlogged(), tuple(errors))

    def _closed(self) -> tuple[ReceiptRoot, ...]:
        address = self.url.rstrip("/") + "/v1/receipt-roots"
        reply = self.transport.send(Request(address, limits=Limits(length=MAX_ANSWER)))
        if reply.status != 200:
            raise CannotTell(f"{self.url} answered {reply.status}")
        return parse_roots(reply.body)

    def _send(self) -> Logged | None:
        """Send the statement that waits, or make the next one; None where there is nothing to log."""
        unsent = self.book.unsent() or self._made()
        if unsent is None:
            return None
        number, entry = unsent
        found = submit(self.log, entry, wait=True)
        assert found.index is not None  # it was waited for
        return Logged(found.index, self.book.logged(number, found.index))

    def _made(self) -> tuple[int, bytes] | None:
        roots = self.book.waiting()
        if not roots:
            return None
        header = {
            "log": self.origin,
            "service": self.service,
            "sequence": self.book.next_sequence(),
            "issued": time_text(self.clock.now().replace(microsecond=0)),
        }
        payload = statement_payload(KIND, header | {"items": [root.item for root in roots]})
        self.book.keep(sign(payload, [self.key]), roots)
        return self.book.unsent()
