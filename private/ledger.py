"""How many tokens each account had today: the only thing that an issuer writes down."""

import sqlite3
import threading
from pathlib import Path

from quotary.errors import CannotTell

_TABLE = (
    "CREATE TABLE IF NOT EXISTS issued (account BLOB, day TEXT, count INTEGER, PRIMARY KEY (account, day))"
)
_TAKE = """INSERT INTO issued VALUES (?, ?, 1)
    ON CONFLICT (account, day) DO UPDATE SET count = count + 1 WHERE count < ?"""


class Ledger:
    """Counts in one SQLite file, safe to use from the threads and processes of one machine."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, timeout=10, isolation_level=None)
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(_TABLE)
        except sqlite3.Error as error:
            raise CannotTell(f"the ledger {path} cannot be opened: {error}") from error

    def take(self, account: bytes, day: str, limit: int) -> bool:
        """Count one token, durably, or say that the day's limit is reached; older days are forgotten."""
        try:
            with self._lock:
                taken = self._database.execute(_TAKE, (account, day, limit)).rowcount if limit > 0 else 0
                self._database.execute("DELETE FROM issued WHERE day < ?", (day,))
        except sqlite3.Error as error:
            raise CannotTell(f"the ledger cannot be written: {error}") from error
        return taken == 1

    def close(self) -> None:
        self._database.close()
