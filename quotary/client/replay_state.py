"""F1's state in an auditor's store (a ``Known``): read as F1 asks for it, written when an interval ends.

So memory does not grow with the log. Kept in memory are only the answers that many entries ask for. What is
found by a hash lies anywhere in its table, so those rows are short; the records lie in the order in which
they were first made.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quotary.errors import CannotTell, Malformed
from quotary.statements.keys import key_measurement, key_service
from quotary.statements.records import MeasurementRecord, Record, ServiceRecord, parse_record
from quotary.statements.release import Release, ReleaseClaim
from quotary.statements.schema import Statement
from quotary.statements.state import Changes, Held, Released, held_by

SCHEMA = """
CREATE TABLE IF NOT EXISTS records
  (key BLOB PRIMARY KEY, digest BLOB NOT NULL, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (place INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS holders
  (measurement BLOB, service TEXT, PRIMARY KEY (measurement, service)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS effective
  (statement BLOB PRIMARY KEY, service TEXT, entry_index INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS releases
  (service TEXT, entry_index INTEGER, signers TEXT NOT NULL, measurements BLOB NOT NULL,
   PRIMARY KEY (service, entry_index)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS denied (measurement BLOB PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequences
  (service TEXT, kind TEXT, newest INTEGER NOT NULL, PRIMARY KEY (service, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (rebuilder TEXT, key BLOB, PRIMARY KEY (rebuilder, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delegations (entry_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
"""

# Ask for many at once; most of what a log brings is new, so what is not there is what is worth knowing.
_TOGETHER = 64
_MANY = f"({','.join('?' * _TOGETHER)})"
_EFFECTIVE = f"SELECT statement FROM effective WHERE statement IN {_MANY}"  # noqa: S608  # placeholders only
_RECORDED = f"SELECT key FROM records WHERE key IN {_MANY}"  # noqa: S608

_KEPT = 4096
_ID_LENGTH = 32


class StoredState:
    """What is known after the newest interval in the store.

    Of a transaction that is rolled back, forget the object too: what it keeps was not.
    """

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._denies = self._row("SELECT 1 FROM denied LIMIT 1") is not None
        self._held: dict[str, Held | None] = {}
        self._sequences: dict[tuple[str, str], int] = {}
        self._absent: set[bytes] = set()

    def pairs(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Give key and value of the map's pairs from one key to another, in ascending order."""
        query = "SELECT key, digest FROM records WHERE key BETWEEN ? AND ?"
        return self._database.execute(query, (first, last))

    def records(self) -> Iterator[Record]:
        """Give every record of the map, in the order of its keys."""
        for (key,) in self._database.execute("SELECT key FROM records ORDER BY key").fetchall():
            record = self.record(key)
            assert record is not None, "the key was just read"
            yield record

    def expect(self, statements: Iterable[Statement]) -> None:
        """Look for statements, and for the records of releases, at once: F1 will ask for them one by one."""
        ids: set[bytes] = set()
        keys: set[bytes] = set()
        for found in statements:
            ids.add(_id(found.statement_id))
            claim = found.predicate.claim if isinstance(found.predicate, Release) else found.predicate
            if isinstance(claim, ReleaseClaim):
                keys.update(key_measurement(found.service, item) for item in claim.measurements)
        self._absent = self._missing(_EFFECTIVE, ids) | self._missing(_RECORDED, keys)

    def absorb(self, new: Changes, records: Mapping[bytes, bytes], entry_at: Callable[[int], bytes]) -> None:
        """Write what an interval changed.

        records: the bytes of ``new.records``; entry_at: gives the entries of the interval
        """
        write = self._write
        self._absent = set()
        (place,) = self._row("SELECT ifnull(max(place), 0) + 1 FROM contents")
        digests = (
            (key, hashlib.sha256(records[key]).digest(), place + number)
            for number, key in enumerate(sorted(records))
        )
        write(
            "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET digest = excluded.digest",
            digests,
        )
        # At the place that the key has: a new one, or its own of before.
        contents = "INSERT OR REPLACE INTO contents SELECT place, ?2 FROM records WHERE key = ?1"
        write(contents, records.items())
        holders = ((item, name) for item, names in new.holders.items() for name in names)
        write("INSERT OR IGNORE INTO holders VALUES (?, ?)", holders)
        effective = (_effective(name, new.releases.get(name)) for name in new.effective)
        write("INSERT INTO effective VALUES (?, ?, ?)", effective)
        releases = new.releases.values()
        signers = {names: json.dumps(sorted(names)) for names in {found.signers for found in releases}}
        rows = ((found.service, found.index, signers[found.signers], _joined(found)) for found in releases)
        write("INSERT INTO releases VALUES (?, ?, ?, ?)", rows)
        write("INSERT OR REPLACE INTO denied VALUES (?, ?)", new.denied.items())
        sequences = ((*names, newest) for names, newest in new.sequences.items())
        write("INSERT OR REPLACE INTO sequences VALUES (?, ?, ?)", sequences)
        write("INSERT OR IGNORE INTO marks VALUES (?, ?)", _marks(new))
        services = (record for record in new.records.values() if isinstance(record, ServiceRecord))
        delegations = ((record.index, entry_at(record.index)) for record in services)
        write("INSERT INTO delegations VALUES (?, ?)", delegations)
        self._denies = self._denies or bool(new.denied)
        _keep(self._held, new.held)
        _keep(self._sequences, new.sequences)

    def held(self, service: str) -> Held | None:
        if service not in self._held:
            record = self.record(key_service(service))
            assert record is None or isinstance(record, ServiceRecord)  # the key covers the kind
            found = None if record is None else self._in_force(record)
            _keep(self._held, {service: found})
        return self._held[service]

    def record(self, key: bytes) -> Record | None:
        if key in self._absent:
            return None
        row = self._row(
            "SELECT digest, record FROM records LEFT JOIN contents USING (place) WHERE key = ?", key
        )
        if row is None:
            return None
        if row[1] is None or hashlib.sha256(row[1]).digest() != row[0]:
            raise self._damaged()
        return parse_record(row[1])

    def holders(self, measurement: bytes) -> tuple[str, ...]:
        query = "SELECT service FROM holders WHERE measurement = ? ORDER BY service"
        return tuple(service for (service,) in self._database.execute(query, (measurement,)))

    def release(self, statement_id: str) -> Released | None:
        row = self._row(
            "SELECT * FROM releases WHERE (service, entry_index) ="
            " (SELECT service, entry_index FROM effective WHERE statement = ?)",
            _id(statement_id),
        )
        return None if row is None else _released(row)

    def denial(self, measurement: bytes) -> str | None:
        if not self._denies:  # nearly always, and every row of every release asks
            return None
        row = self._row("SELECT reason FROM denied WHERE measurement = ?", measurement)
        return None if row is None else str(row[0])

    def sequence(self, service: str, kind: str) -> int:
        if (service, kind) not in self._sequences:
            row = self._row("SELECT newest FROM sequences WHERE service = ? AND kind = ?", service, kind)
            _keep(self._sequences, {(service, kind): 0 if row is None else int(row[0])})
        return self._sequences[service, kind]

    def had_effect(self, statement_id: str) -> bool:
        name = _id(statement_id)
        if name in self._absent:
            return False
        return self._row("SELECT 1 FROM effective WHERE statement = ?", name) is not None

    def signed_by(self, key: str, service: str, start: int) -> Iterator[Released]:
        query = "SELECT * FROM releases WHERE service = ? AND entry_index >= ? ORDER BY entry_index"
        for released in map(_released, self._database.execute(query, (service, start))):
            if key in released.signers:
                yield released

    def marked_by(self, key: str, start: int) -> Iterator[MeasurementRecord]:
        for (name,) in self._database.execute("SELECT key FROM marks WHERE rebuilder = ?", (key,)):
            record = self.record(name)
            if isinstance(record, MeasurementRecord) and any(
                mark.key == key and mark.index >= start for mark in record.rebuilders
            ):
                yield record

    def _in_force(self, record: ServiceRecord) -> Held:
        row = self._row("SELECT entry FROM delegations WHERE entry_index = ?", record.index)
        try:
            return held_by(record, b"" if row is None else row[0])
        except Malformed as error:
            raise self._damaged() from error

    def _row(self, query: str, *values: bytes | str | int) -> Any:
        return self._database.execute(query, values).fetchone()

    def _missing(self, query: str, names: set[bytes]) -> set[bytes]:
        """Give those of the names that are not stored; as digests, those of two tables are never the same."""
        ordered = sorted(names)
        for first in range(0, len(ordered), _TOGETHER):
            some = ordered[first : first + _TOGETHER]
            padding = some[-1:] * (_TOGETHER - len(some))
            names.difference_update(name for (name,) in self._database.execute(query, some + padding))
        return names

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows in the order in which they lie on disk."""
        self._database.executemany(statement, sorted(rows))

    def _damaged(self) -> CannotTell:
        # Not Malformed: that would be a finding about the log.
        return CannotTell(
            f"the audit store {self._path} is damaged", next_command="remove it and audit again"
        )


def _keep(answers: dict[Any, Any], more: Mapping[Any, Any]) -> None:
    if len(answers) + len(more) > _KEPT:
        answers.clear()
    answers.update(more)


def _id(statement_id: str) -> bytes:
    return bytes.fromhex(statement_id.removeprefix("sha256:"))


def _effective(statement_id: str, released: Released | None) -> tuple[bytes, str, int]:
    return (_id(statement_id), *(("", -1) if released is None else (released.service, released.index)))


def _joined(found: Released) -> bytes:
    return b"".join(found.measurements)


def _released(row: Any) -> Released:
    service, index, signers, ids = row
    measurements = tuple(ids[at : at + _ID_LENGTH] for at in range(0, len(ids), _ID_LENGTH))
    return Released(service, index, frozenset(json.loads(signers)), measurements)


def _marks(new: Changes) -> Iterator[tuple[str, bytes]]:
    for key, record in new.records.items():
        if isinstance(record, MeasurementRecord):
            for mark in record.rebuilders:
                yield mark.key, key
