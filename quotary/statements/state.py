"""What F1 remembers between entries: a protocol to ask it, and the changes of entries over it.

F1 asks by name and never walks over everything, so the state may lie in a database as well as in memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from quotary.errors import Malformed
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.records import MeasurementRecord, Record, ServiceRecord
from quotary.statements.schema import Statement, parse_statement


@dataclass(frozen=True, slots=True)
class Held:
    """The delegation in force for a service, and since when each compromised key is not believed."""

    delegation: Delegation
    statement_id: str
    compromised: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Released:
    """An effective release: who signed it and which measurement ids its rows have."""

    service: str
    index: int
    signers: frozenset[str]
    measurements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """All that one entry changes.

    records:  the new content of every map key that the entry touches, each once
    held:     the delegation that is in force from now on
    released: the release that may be revoked and rebuilt from now on
    denied:   measurement ids that no service may use any more from now on, with the reason
    """

    records: tuple[Record, ...]
    held: Held | None = None
    released: Released | None = None
    denied: Mapping[bytes, str] = field(default_factory=dict)


class Known(Protocol):
    """What is known after some entry of a log; the answers of one such object change only by ``apply``."""

    def held(self, service: str) -> Held | None:
        """Give the delegation in force of a service."""

    def record(self, key: bytes) -> Record | None:
        """Give the newest record under a map key (32 bytes)."""

    def holders(self, measurement: bytes) -> tuple[str, ...]:
        """Give the services that have a record of a measurement id, in no particular order."""

    def release(self, statement_id: str) -> Released | None:
        """Give an effective release."""

    def denial(self, measurement: bytes) -> str | None:
        """Give the reason for which no service may use a measurement id."""

    def sequence(self, service: str, kind: str) -> int:
        """Give the newest effective sequence, 0 at first."""

    def had_effect(self, statement_id: str) -> bool:
        """Say whether a statement had effect."""

    def signed_by(self, key: str, service: str, start: int) -> Iterable[Released]:
        """Give the effective releases of a service that a key signed, from index ``start`` on."""

    def marked_by(self, key: str, start: int) -> Iterable[MeasurementRecord]:
        """Give the measurement records with a verdict of a rebuilder's key, from index ``start`` on."""


class Nothing:
    """What is known before entry 0."""

    def held(self, service: str) -> Held | None:
        return None

    def record(self, key: bytes) -> Record | None:
        return None

    def holders(self, measurement: bytes) -> tuple[str, ...]:
        return ()

    def release(self, statement_id: str) -> Released | None:
        return None

    def denial(self, measurement: bytes) -> str | None:
        return None

    def sequence(self, service: str, kind: str) -> int:
        return 0

    def had_effect(self, statement_id: str) -> bool:
        return False

    def signed_by(self, key: str, service: str, start: int) -> Iterable[Released]:
        return ()

    def marked_by(self, key: str, start: int) -> Iterable[MeasurementRecord]:
        return ()


@dataclass(slots=True)
class Changes:
    """What entries changed; everything, if they begin with entry 0. The values are immutable.

    releases:  statement id to release
    sequences: (service, kind) to the newest effective sequence
    effective: statement ids that had effect
    """

    held: dict[str, Held] = field(default_factory=dict)
    records: dict[bytes, Record] = field(default_factory=dict)
    holders: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    releases: dict[str, Released] = field(default_factory=dict)
    denied: dict[bytes, str] = field(default_factory=dict)
    sequences: dict[tuple[str, str], int] = field(default_factory=dict)
    effective: set[str] = field(default_factory=set)

    def copy(self) -> "Changes":
        """Make changes that go on separately; costs a few microseconds per thousand items."""
        return Changes(
            dict(self.held),
            dict(self.records),
            dict(self.holders),
            dict(self.releases),
            dict(self.denied),
            dict(self.sequences),
            set(self.effective),
        )

    def add(self, later: "Changes") -> None:
        """Take over what changed after these."""
        self.held.update(later.held)
        self.records.update(later.records)
        for measurement, services in later.holders.items():
            self.holders[measurement] = (*self.holders.get(measurement, ()), *services)
        self.releases.update(later.releases)
        self.denied.update(later.denied)
        self.sequences.update(later.sequences)
        self.effective |= later.effective

    def store(self, record: Record) -> None:
        """Put a record in its place."""
        self.records[record.key] = record
        if isinstance(record, MeasurementRecord):
            holders = self.holders.get(record.measurement, ())
            if record.service not in holders:
                self.holders[record.measurement] = (*holders, record.service)


class State:
    """Changes over what was known before them (a ``Known``).

    base: must not change any more; ``Nothing()`` for a state that is all in memory
    new:  what was applied since
    """

    __slots__ = ("base", "new")

    def __init__(self, base: Known | None = None, new: Changes | None = None) -> None:
        self.base: Known = base or Nothing()
        self.new = new or Changes()

    def copy(self) -> "State":
        """Make a state over the same base that changes on its own."""
        return State(self.base, self.new.copy())

    def apply(self, statement: Statement, effect: Effect) -> None:
        """Take over what an entry changes."""
        new = self.new
        new.effective.add(statement.statement_id)
        new.sequences[statement.service, statement.kind] = statement.sequence
        for record in effect.records:
            new.store(record)
        if effect.held is not None:
            new.held[statement.service] = effect.held
        if effect.released is not None:
            new.releases[statement.statement_id] = effect.released
        new.denied.update(effect.denied)

    def held(self, service: str) -> Held | None:
        return self.new.held.get(service) or self.base.held(service)

    def record(self, key: bytes) -> Record | None:
        return self.new.records.get(key) or self.base.record(key)

    def holders(self, measurement: bytes) -> tuple[str, ...]:
        both = (*self.base.holders(measurement), *self.new.holders.get(measurement, ()))
        return tuple(dict.fromkeys(both))

    def release(self, statement_id: str) -> Released | None:
        return self.new.releases.get(statement_id) or self.base.release(statement_id)

    def denial(self, measurement: bytes) -> str | None:
        return self.new.denied.get(measurement) or self.base.denial(measurement)

    def sequence(self, service: str, kind: str) -> int:
        found = self.new.sequences.get((service, kind))
        return self.base.sequence(service, kind) if found is None else found

    def had_effect(self, statement_id: str) -> bool:
        return statement_id in self.new.effective or self.base.had_effect(statement_id)

    def signed_by(self, key: str, service: str, start: int) -> Iterator[Released]:
        yield from self.base.signed_by(key, service, start)
        for released in self.new.releases.values():
            if released.service == service and key in released.signers and released.index >= start:
                yield released

    def marked_by(self, key: str, start: int) -> Iterator[MeasurementRecord]:
        for before in self.base.marked_by(key, start):
            if before.key not in self.new.records:
                yield before
        for record in self.new.records.values():
            if isinstance(record, MeasurementRecord) and any(
                mark.key == key and mark.index >= start for mark in record.rebuilders
            ):
                yield record


def held_by(record: ServiceRecord, entry: bytes) -> Held:
    """Read the delegation that a service record names from its entry; ``Malformed`` if it is not that one."""
    statement = parse_statement(Envelope.parse(entry).payload)
    if statement.statement_id != record.delegation or not isinstance(statement.predicate, Delegation):
        raise Malformed(f"entry {record.index} is not the delegation of {record.service}")
    compromised = {item.key: item.from_index for item in record.compromised}
    return Held(statement.predicate, statement.statement_id, compromised)


def touched(records: Iterable[MeasurementRecord], index: int) -> tuple[MeasurementRecord, ...]:
    """Enter an entry into the history of each record."""
    return tuple(replace(record, last=index, history=record.history.touched(index)) for record in records)
