"""The records of the status map: what F1 says of a measurement, a service and a product (design section 5).

A record is canonical JSON; the map holds its SHA-256 under the record's key. ``parse_record`` reads one
back into the same type, so F1 and verifiers speak of the same thing.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from quotary.canonical import Fields, canonical, parse_canonical, time_text
from quotary.errors import Malformed
from quotary.statements.delegation import Compromise
from quotary.statements.floor import Floor, parse_floor
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.predicates import MAX_SERVICE, ascending, parse_service

MAX_RECORD = 1 << 20
MAX_MARKS = 4096

Status = Literal["active", "revoked"]


@dataclass(frozen=True, slots=True)
class History:
    """The entries that touched a key: how many, and ``SHA-256(chain || u64be index)`` from 32 zeros on."""

    count: int = 0
    chain: bytes = bytes(32)

    def touched(self, index: int) -> "History":
        """Add an entry."""
        return History(self.count + 1, hashlib.sha256(self.chain + index.to_bytes(8, "big")).digest())


@dataclass(frozen=True, slots=True)
class Mark:
    """A rebuilder's newest verdict about a row of the record's release: match, mismatch or failed."""

    key: str
    verdict: str
    index: int


@dataclass(frozen=True, slots=True)
class MeasurementRecord:
    """The status of one measurement id of one service.

    release, not_after: of the newest effective release; absent if it was revoked before it was ever released
    suspended_until:    before this time it must not be used
    first, last:        indices of the first and newest entry that touched it
    rebuilders:         verdicts about ``release``, by key id
    key:                the map key, 32 bytes
    """

    service: str
    measurement: bytes
    status: Status
    suspended_until: datetime | None
    release: str | None
    not_after: datetime | None
    first: int
    last: int
    reason: str | None
    rebuilders: tuple[Mark, ...]
    history: History
    key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Kept, because a release asks for it at each of its steps.
        object.__setattr__(self, "key", key_measurement(self.service, self.measurement))

    def encode(self) -> bytes:
        """Write the record: member by member in the order of their names, as there is one for each release.

        Only a reason and verdicts hold text that may need escaping.
        """
        marks = [{"key": mark.key, "verdict": mark.verdict, "index": mark.index} for mark in self.rebuilders]
        members = (
            f'"count":{self.history.count},"first":{self.first},"hist":"{self.history.chain.hex()}"',
            f'"id":"{self.measurement.hex()}","key":"{self.key.hex()}","kind":"measurement","last":{self.last}',
            f'"not_after":"{time_text(self.not_after)}"' if self.release and self.not_after else "",
            f'"reason":{canonical(self.reason).decode()}' if self.reason is not None else "",
            f'"rebuilders":{canonical(marks).decode() if marks else "[]"}',
            f'"release":"{self.release}"' if self.release and self.not_after else "",
            f'"service":"{self.service}","status":"{self.status}"',
            f'"suspended_until":"{time_text(self.suspended_until)}"' if self.suspended_until else "",
            '"v":1',
        )
        return f"{{{','.join(filter(None, members))}}}".encode()


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """The newest effective delegation of a service; ``index`` is its place in the log."""

    service: str
    delegation: str
    index: int
    expires: datetime
    compromised: tuple[Compromise, ...]
    history: History

    @property
    def key(self) -> bytes:
        """The map key, 32 bytes."""
        return key_service(self.service)

    def encode(self) -> bytes:
        """Write the record."""
        document: dict[str, object] = {
            **_head(self.key, "service", self.history),
            "service": self.service,
            "delegation": self.delegation,
            "index": self.index,
            "expires": time_text(self.expires),
        }
        if self.compromised:
            document["compromised"] = [
                {"key": item.key, "from_index": item.from_index} for item in self.compromised
            ]
        return canonical(document)


@dataclass(frozen=True, slots=True)
class SetFloor:
    """A floor, the statement that set it, and until when it stands."""

    floor: Floor
    expires: datetime
    statement: str


@dataclass(frozen=True, slots=True)
class TCBRecord:
    """The floor of one product; ``coming`` replaces it from ``coming_from`` on (a lowering)."""

    platform: str
    product: str
    current: SetFloor
    coming: SetFloor | None
    coming_from: datetime | None
    history: History

    @property
    def key(self) -> bytes:
        """The map key, 32 bytes."""
        return key_tcb(self.platform, self.product)

    def at(self, time: datetime) -> SetFloor:
        """Give the floor that is in force at a time; whether it has expired is the caller's to compare."""
        if self.coming is not None and self.coming_from is not None and time >= self.coming_from:
            return self.coming
        return self.current

    def encode(self) -> bytes:
        """Write the record."""
        document: dict[str, object] = {
            **_head(self.key, "tcb", self.history),
            "platform": self.platform,
            "product": self.product,
            **_set_floor(self.current),
        }
        if self.coming is not None and self.coming_from is not None:
            document["next"] = {**_set_floor(self.coming), "from": time_text(self.coming_from)}
        return canonical(document)


Record = MeasurementRecord | ServiceRecord | TCBRecord


def parse_record(data: bytes) -> Record:
    """Read a record of any kind; its key is recomputed and compared."""
    fields = Fields(parse_canonical(data, MAX_RECORD), "record")
    fields.integer("v", 1, 1)
    key = fields.hexbytes("key", 32)
    kind = fields.choice("kind", "measurement", "service", "tcb")
    parse = _measurement if kind == "measurement" else _service if kind == "service" else _tcb
    record: Record = parse(fields, History(fields.integer("count", 1), fields.hexbytes("hist", 32)))
    fields.done()
    if record.key != key:
        raise Malformed("the record's key is not the key of its names")
    return record


def _measurement(fields: Fields, history: History) -> MeasurementRecord:
    if fields.has("release") != fields.has("not_after"):
        raise Malformed("a measurement record has release and not_after, or neither")
    marks = tuple(_mark(item) for item in fields.items("rebuilders", MAX_MARKS))
    return MeasurementRecord(
        parse_service(fields.text("service", MAX_SERVICE)),
        fields.hexbytes("id", 32),
        "active" if fields.choice("status", "active", "revoked") == "active" else "revoked",
        fields.optional("suspended_until", fields.time),
        fields.optional("release", fields.identity),
        fields.optional("not_after", fields.time),
        fields.integer("first"),
        fields.integer("last"),
        fields.optional("reason", fields.text),
        ascending(marks, "rebuilders", lambda mark: mark.key),
        history,
    )


def _mark(value: object) -> Mark:
    fields = Fields(value, "rebuilder")
    mark = Mark(
        fields.identity("key"),
        fields.choice("verdict", "match", "mismatch", "failed"),
        fields.integer("index"),
    )
    fields.done()
    return mark


def _service(fields: Fields, history: History) -> ServiceRecord:
    compromised = fields.items("compromised", MAX_MARKS, low=1) if fields.has("compromised") else ()
    return ServiceRecord(
        parse_service(fields.text("service", MAX_SERVICE)),
        fields.identity("delegation"),
        fields.integer("index"),
        fields.time("expires"),
        ascending(tuple(map(_compromise, compromised)), "compromised keys", lambda item: item.key),
        history,
    )


def _compromise(value: object) -> Compromise:
    fields = Fields(value, "compromised key")
    found = Compromise(fields.identity("key"), fields.integer("from_index"))
    fields.done()
    return found


def _tcb(fields: Fields, history: History) -> TCBRecord:
    platform = fields.name("platform", 64)
    product = fields.name("product", 128)
    current = _parse_set_floor(fields, platform)
    if not fields.has("next"):
        return TCBRecord(platform, product, current, None, None, history)
    coming = fields.fields("next")
    record = TCBRecord(
        platform, product, current, _parse_set_floor(coming, platform), coming.time("from"), history
    )
    coming.done()
    return record


def _parse_set_floor(fields: Fields, platform: str) -> SetFloor:
    floor = parse_floor(fields.fields("floor"), platform)
    return SetFloor(floor, fields.time("expires"), fields.identity("statement"))


def _set_floor(found: SetFloor) -> dict[str, object]:
    return {
        "floor": found.floor.document(),
        "expires": time_text(found.expires),
        "statement": found.statement,
    }


def _head(key: bytes, kind: str, history: History) -> dict[str, object]:
    return {"v": 1, "key": key.hex(), "kind": kind, "count": history.count, "hist": history.chain.hex()}
