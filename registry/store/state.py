"""F1's state as the database holds it: read on demand, as of one state entry (``quotary.statements.state``).

So a start reads a few rows, whatever the log's size. What one state entry committed never changes, so the
answers are kept; ``warm`` fetches those that many new statements need in a few queries.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from quotary.statements.envelope import Envelope
from quotary.statements.keys import key_measurement, key_service
from quotary.statements.records import MeasurementRecord, Record, ServiceRecord, parse_record
from quotary.statements.release import Release, ReleaseClaim
from quotary.statements.revocation import Rebuild
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.state import Held, Released, held_by
from registry.store.read import Reader
from registry.store.rows import OutcomeRow

PAGE = 500
KEPT = 65_536
KEPT_DELEGATIONS = 1024
KEPT_SERVICES = 1024

K = TypeVar("K")
V = TypeVar("V")


class States:
    """The states of one log; what is costly to read and never changes is kept over all of them."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._delegations: Kept[str, Held] = Kept(KEPT_DELEGATIONS)
        self._services: Kept[bytes, Record] = Kept(KEPT_SERVICES)

    def at(self, size: int) -> "StoredState":
        """Give the state as of the state entry at ``size - 1``; size 0 is before entry 0."""
        return StoredState(self._read, size, self._delegations, self._services)


class StoredState:
    """What is known as of one state entry (a ``Known``)."""

    def __init__(
        self,
        read: Reader,
        size: int,
        delegations: "Kept[str, Held]",
        services: "Kept[bytes, Record]",
    ) -> None:
        self.size = size
        self._read = read
        self._delegations = delegations
        self._services = services
        self._records: Kept[bytes, Record | None] = Kept(KEPT)
        self._effective: Kept[str, bool] = Kept(KEPT)
        self._denials: Kept[bytes, str | None] = Kept(KEPT)
        self._releases: Kept[str, Released | None] = Kept(KEPT)
        self._sequences: Kept[tuple[str, str], int] = Kept(KEPT)
        self._held: Kept[str, Held | None] = Kept(KEPT_DELEGATIONS)

    def warm(self, statements: Sequence[Statement]) -> None:
        """Fetch what deciding these statements asks for, in few queries."""
        self._warm_sequences(statements)
        ids = [statement.statement_id for statement in statements]
        effective = self._read.effective(ids, self.size)
        self._effective.fill({name: name in effective for name in ids})
        rows = [
            (statement.service, measurement)
            for statement in statements
            for measurement in _released_by(statement)
        ]
        keys = [key_measurement(service, measurement) for service, measurement in rows]
        services = [key_service(service) for service in {statement.service for statement in statements}]
        records = self._read.newest_records(keys + services, self.size)
        self._records.fill({key: parse_record(records[key]) if key in records else None for key in keys})
        self._records.fill({key: self._service(records.get(key)) for key in services})
        measurements = list({measurement for _, measurement in rows})
        denials = self._read.denials(measurements, self.size)
        self._denials.fill({measurement: denials.get(measurement) for measurement in measurements})

    def _service(self, data: bytes | None) -> Record | None:
        """Read a service's record, which mostly is the same as before."""
        return None if data is None else self._services.get(data, lambda: parse_record(data))

    def _warm_sequences(self, statements: Sequence[Statement]) -> None:
        services: dict[str, dict[str, None]] = {}
        for statement in statements:
            services.setdefault(statement.kind, {})[statement.service] = None
        for kind, names in services.items():
            found = self._read.newest_sequences(list(names), kind, self.size)
            self._sequences.fill({(name, kind): found.get(name, 0) for name in names})

    def held(self, service: str) -> Held | None:
        return self._held.get(service, lambda: self._read_held(service))

    def _read_held(self, service: str) -> Held | None:
        record = self.record(key_service(service))
        if record is None:
            return None
        assert isinstance(record, ServiceRecord)  # the key covers the kind
        return self._delegations.get(record.delegation, lambda: held_by(record, self._entry(record.index)))

    def record(self, key: bytes) -> Record | None:
        def read() -> Record | None:
            data = self._read.record(key, self.size)
            return None if data is None else parse_record(data)

        return self._records.get(key, read)

    def holders(self, measurement: bytes) -> tuple[str, ...]:
        return self._read.holders(measurement, self.size)

    def release(self, statement_id: str) -> Released | None:
        def read() -> Released | None:
            rows = self._read.by_statement(statement_id, self.size)
            return next((self._released(row) for row in rows if row.effect and row.kind == "release"), None)

        return self._releases.get(statement_id, read)

    def denial(self, measurement: bytes) -> str | None:
        return self._denials.get(
            measurement, lambda: self._read.denials([measurement], self.size).get(measurement)
        )

    def sequence(self, service: str, kind: str) -> int:
        return self._sequences.get(
            (service, kind), lambda: self._read.newest_sequences([service], kind, self.size).get(service, 0)
        )

    def had_effect(self, statement_id: str) -> bool:
        return self._effective.get(
            statement_id, lambda: bool(self._read.effective([statement_id], self.size))
        )

    def signed_by(self, key: str, service: str, start: int) -> Iterator[Released]:
        for row in self._signed(key, "release", start):
            if row.service == service:
                yield self._released(row)

    def marked_by(self, key: str, start: int) -> Iterator[MeasurementRecord]:
        seen: set[bytes] = set()
        for row in self._signed(key, "rebuild", start):
            for name in self._rebuilt(row):
                record = None if name in seen else self.record(name)
                seen.add(name)
                if isinstance(record, MeasurementRecord) and any(
                    mark.key == key and mark.index >= start for mark in record.rebuilders
                ):
                    yield record

    def _signed(self, key: str, kind: str, start: int) -> Iterator[OutcomeRow]:
        digest = bytes.fromhex(key.removeprefix("sha256:"))
        while rows := self._read.signed_by(digest, kind, start, self.size, PAGE):
            yield from rows
            start = rows[-1].index + 1

    def _rebuilt(self, row: OutcomeRow) -> Iterable[bytes]:
        """Give the keys of the records that a rebuild spoke of."""
        found = parse_statement(Envelope.parse(self._entry(row.index)).payload).predicate
        assert isinstance(found, Rebuild)  # the row says so
        released = None if found.rows else self.release(found.release)
        ids = released.measurements if released else (item.measurement for item in found.rows)
        return [key_measurement(row.service, measurement) for measurement in ids]

    def _released(self, row: OutcomeRow) -> Released:
        envelope = Envelope.parse(self._entry(row.index))
        found = parse_statement(envelope.payload).predicate
        assert isinstance(found, Release)  # the row says so
        signers = frozenset(signature.keyid for signature in envelope.signatures)
        return Released(row.service, row.index, signers, tuple(item.measurement for item in found.rows))

    def _entry(self, index: int) -> bytes:
        return self._read.entries(index, index + 1)[0]


def _released_by(statement: Statement) -> tuple[bytes, ...]:
    found = statement.predicate
    claim = found.claim if isinstance(found, Release) else found
    return claim.measurements if isinstance(claim, ReleaseClaim) else ()


class Kept(Generic[K, V]):
    """Answers by name, up to a number; then it begins anew."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: dict[K, V] = {}

    def get(self, name: K, read: Callable[[], V]) -> V:
        """Give the answer, read where it is not known yet."""
        try:
            return self._found[name]
        except KeyError:
            found = read()
        self.fill({name: found})
        return found

    def fill(self, found: Mapping[K, V]) -> None:
        """Take over answers."""
        if len(self._found) + len(found) > self._limit:
            self._found.clear()
        self._found.update(found)
