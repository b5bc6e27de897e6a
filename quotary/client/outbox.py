"""A monitor's alerts, kept in the store of its replay until every output has taken them.

An alert lands in the transaction that lands the entries it is about, so that a crash neither loses one nor
tells of what was not replayed; an output that failed is tried again, so it may hear of something twice.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

SCHEMA = "CREATE TABLE IF NOT EXISTS alerts (id INTEGER PRIMARY KEY AUTOINCREMENT, document BLOB NOT NULL);"

Keep = Callable[[str, bytes], None]
Fact = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Alert:
    """One message: its number in this monitor's life, and its document (``docs/formats/watch.md``)."""

    number: int
    document: Mapping[str, object]

    @property
    def text(self) -> str:
        """Give the plain sentence."""
        return str(self.document["text"])


class Outbox:
    """What was said, and how far each output was told."""

    def __init__(self, database: sqlite3.Connection, fact: Fact, keep: Keep) -> None:
        self._database = database
        self._fact = fact
        self._keep = keep

    def begin(self, outputs: Iterable[str]) -> None:
        """Let an output that was not there before begin with what comes next."""
        for name in outputs:
            if self._fact(_cursor(name)) is None:
                self.told(name, self.newest_number)

    def post(self, document: Mapping[str, object]) -> None:
        """Keep an alert for every output."""
        data = json.dumps(document, ensure_ascii=False).encode()
        self._database.execute("INSERT INTO alerts (document) VALUES (?)", (data,))

    def after(self, number: int) -> list[Alert]:
        """Give the alerts behind a number, oldest first."""
        query = "SELECT id, document FROM alerts WHERE id > ? ORDER BY id"
        return [Alert(at, json.loads(data)) for at, data in self._database.execute(query, (number,))]

    def waiting(self, output: str) -> list[Alert]:
        """Give what an output was not told yet, oldest first."""
        return self.after(int(self._fact(_cursor(output)) or b"0"))

    def told(self, output: str, number: int) -> None:
        """Remember that an output took everything up to this alert."""
        self._keep(_cursor(output), str(number).encode())

    def newest(self, limit: int) -> Sequence[Alert]:
        """Give the newest alerts, newest first."""
        query = "SELECT id, document FROM alerts ORDER BY id DESC LIMIT ?"
        return [Alert(at, json.loads(data)) for at, data in self._database.execute(query, (limit,))]

    @property
    def newest_number(self) -> int:
        """Give the number of the newest alert; 0 before the first."""
        row = self._database.execute("SELECT max(id) FROM alerts").fetchone()
        return int(row[0] or 0)


def _cursor(output: str) -> str:
    return f"told {output}"
