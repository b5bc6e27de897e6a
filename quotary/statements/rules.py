"""What each kind of statement changes, once it is known who made it (docs/formats/f1.md, step 11).

Every function gives the whole ``Effect`` of one entry or raises ``Ignored``; none changes the state.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from quotary.statements.delegation import Compromise, Delegation
from quotary.statements.floor import TCBFloor
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.outcome import Ignored
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.records import (
    History,
    Mark,
    MeasurementRecord,
    Record,
    ServiceRecord,
    SetFloor,
    Status,
    TCBRecord,
)
from quotary.statements.release import ReleaseClaim
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.state import Effect, Held, Known, Released, touched

MAX_LIFETIME = timedelta(days=180)
MAX_SUSPENSION = timedelta(hours=72)
LOWERING_DELAY = timedelta(hours=72)
COMPROMISED = "key compromised"


@dataclass(frozen=True, slots=True)
class Entry:
    """An authenticated statement at its place.

    signers: ids of the keys that signed; roles: names of the roles whose threshold they reach
    ts:      log time in seconds
    """

    index: int
    statement_id: str
    signers: frozenset[str]
    roles: frozenset[str]
    ts: int


def delegate(state: Known, entry: Entry, found: Delegation) -> Effect:
    """Put a delegation in force; what a newly compromised key signed from its index on is revoked."""
    service = found.header.service
    before = state.held(service)
    if before is not None and found.previous != before.statement_id:
        raise Ignored("previous", f"the delegation in force is {before.statement_id}")
    known = before.compromised if before is not None else {}
    worse = tuple(
        item for item in found.compromised if item.from_index < known.get(item.key, item.from_index + 1)
    )
    merged = {**known, **{item.key: item.from_index for item in worse}}
    if not merged.keys().isdisjoint(found.keys):
        raise Ignored("compromised-key", f"the key {min(merged.keys() & found.keys)} is compromised")
    old = state.record(key_service(service))
    record = ServiceRecord(
        service,
        entry.statement_id,
        entry.index,
        found.expires,
        tuple(Compromise(key, merged[key]) for key in sorted(merged)),
        (old.history if old is not None else History()).touched(entry.index),
    )
    marked = _unmarked(state, worse) if service == LOG_SERVICE else _betrayed(state, service, worse)
    records: tuple[Record, ...] = (record, *touched(marked, entry.index))
    return Effect(records, held=Held(found, entry.statement_id, merged))


def release(state: Known, entry: Entry, found: ReleaseClaim) -> Effect:
    """Set the release of each row's measurement id; a denied id is born revoked, a revoked one stays so."""
    if found.not_after > found.header.issued + MAX_LIFETIME:
        raise Ignored("release-too-long", "not_after is more than 180 days after issued")
    service = found.header.service
    changed: list[MeasurementRecord] = []
    for measurement in found.measurements:
        before = _measured(state, service, measurement)
        changed.append(
            _newly_released(before, entry, found.not_after)
            if before is not None
            else _born_released(state, service, measurement, entry, found.not_after)
        )
    released = Released(service, entry.index, entry.signers, found.measurements)
    return Effect(tuple(changed), released=released)


def rebuild(state: Known, entry: Entry, found: Rebuild) -> Effect:
    """Enter a rebuilder's verdict into the records that still speak of that release."""
    released = state.release(found.release)
    if released is None or released.service != found.header.service:
        raise Ignored("unknown-release", f"{found.header.service} has no release {found.release}")
    verdicts = {row.measurement: "match" if row.match else "mismatch" for row in found.rows}
    if not verdicts:
        verdicts = dict.fromkeys(released.measurements, "failed")
    if not verdicts.keys() <= set(released.measurements):
        raise Ignored("foreign-row", "a row is not one of the release")
    changed: list[MeasurementRecord] = []
    for measurement, verdict in verdicts.items():
        record = _measured(state, released.service, measurement)
        if record is not None and record.release == found.release:
            changed.append(_marked(record, state, entry, verdict))
    if not changed:
        raise Ignored("superseded", "every row has a newer release")
    return Effect(touched(changed, entry.index))


def revoke(state: Known, entry: Entry, found: Revocation) -> Effect:
    """Revoke for ever, or suspend for at most 72 hours; as ``log`` for every service."""
    service = found.header.service
    ids = _revoked_ids(state, found)
    if found.suspend_until is not None:
        return _suspend(state, entry, found, ids, found.suspend_until)
    everywhere = service == LOG_SERVICE
    changed: list[MeasurementRecord] = []
    for measurement in ids:
        holders = state.holders(measurement) if everywhere else ()
        for holder in dict.fromkeys((service, *holders)):
            record = _measured(state, holder, measurement)
            if record is None:
                changed.append(_born(holder, measurement, entry.index, found.reason))
            elif record.status == "active":
                changed.append(replace(record, status="revoked", reason=found.reason))
    if not changed:
        raise Ignored("already-revoked", "everything it names is revoked")
    fresh = [item for item in ids if state.denial(item) is None] if everywhere else []
    return Effect(touched(changed, entry.index), denied=dict.fromkeys(fresh, found.reason))


def set_floor(state: Known, entry: Entry, found: TCBFloor) -> Effect:
    """Set a floor that demands at least as much at once; a lowering only for root, and 72 hours later."""
    now = datetime.fromtimestamp(entry.ts, UTC)
    new = SetFloor(found.floor, found.expires, entry.statement_id)
    old = state.record(key_tcb(found.platform, found.product))
    if not isinstance(old, TCBRecord):
        history = History().touched(entry.index)
        return Effect((TCBRecord(found.platform, found.product, new, None, None, history),))
    record = replace(old, history=old.history.touched(entry.index))
    if old.coming is not None and old.at(now) is old.coming:
        record = replace(record, current=old.coming, coming=None, coming_from=None)
    current = record.current.floor
    weaker = found.floor.weaknesses(current)
    if weaker and "root" not in entry.roles:
        raise Ignored("floor-lower", f"it demands less than the current floor in {', '.join(weaker)}")
    if weaker:
        return Effect((replace(record, coming=new, coming_from=now + LOWERING_DELAY),))
    if current.weaknesses(found.floor):  # a stricter floor cancels a lowering, a renewed one does not
        record = replace(record, coming=None, coming_from=None)
    return Effect((replace(record, current=new),))


def _measured(state: Known, service: str, measurement: bytes) -> MeasurementRecord | None:
    found = state.record(key_measurement(service, measurement))
    assert found is None or isinstance(found, MeasurementRecord)  # the key covers the kind
    return found


def _born(service: str, measurement: bytes, index: int, reason: str | None) -> MeasurementRecord:
    return MeasurementRecord(
        service, measurement, _status(reason), None, None, None, index, index, reason, (), History()
    )


def _status(reason: str | None) -> Status:
    return "active" if reason is None else "revoked"


def _born_released(
    state: Known, service: str, measurement: bytes, entry: Entry, not_after: datetime
) -> MeasurementRecord:
    reason, name, index = state.denial(measurement), entry.statement_id, entry.index
    history = History().touched(index)
    return MeasurementRecord(
        service, measurement, _status(reason), None, name, not_after, index, index, reason, (), history
    )


def _newly_released(before: MeasurementRecord, entry: Entry, not_after: datetime) -> MeasurementRecord:
    return MeasurementRecord(
        before.service,
        before.measurement,
        before.status,
        before.suspended_until,
        entry.statement_id,
        not_after,
        before.first,
        entry.index,
        before.reason,
        (),  # a rebuild speaks of one release, so a newer release starts without any
        before.history.touched(entry.index),
    )


def _betrayed(state: Known, service: str, worse: Iterable[Compromise]) -> list[MeasurementRecord]:
    """Revoke every active row of the releases that a compromised key signed."""
    names: dict[bytes, None] = {}
    for item in worse:
        for released in state.signed_by(item.key, service, item.from_index):
            names.update(dict.fromkeys(released.measurements))
    return [
        replace(record, status="revoked", reason=COMPROMISED)
        for record in (_measured(state, service, measurement) for measurement in names)
        if record is not None and record.status == "active"
    ]


def _unmarked(state: Known, worse: Iterable[Compromise]) -> list[MeasurementRecord]:
    """Take out the verdicts that compromised rebuilders gave."""
    from_index = {item.key: item.from_index for item in worse}
    marked = {
        record.key: record for key, index in from_index.items() for record in state.marked_by(key, index)
    }
    return [
        replace(
            record,
            rebuilders=tuple(
                mark for mark in record.rebuilders if mark.index < from_index.get(mark.key, mark.index + 1)
            ),
        )
        for record in marked.values()
    ]


def _marked(record: MeasurementRecord, state: Known, entry: Entry, verdict: str) -> MeasurementRecord:
    log = state.held(LOG_SERVICE)
    assert log is not None  # the entry is authenticated
    role = log.delegation.roles["rebuilder"]
    marks = {mark.key: mark for mark in record.rebuilders}
    marks.update({key: Mark(key, verdict, entry.index) for key in role.keys & entry.signers})
    return replace(record, rebuilders=tuple(marks[key] for key in sorted(marks)))


def _revoked_ids(state: Known, found: Revocation) -> tuple[bytes, ...]:
    if found.release is None:
        return found.measurements
    released = state.release(found.release)
    if released is None or found.header.service not in (LOG_SERVICE, released.service):
        raise Ignored("unknown-release", f"{found.header.service} has no release {found.release}")
    return released.measurements


def _suspend(
    state: Known, entry: Entry, found: Revocation, ids: tuple[bytes, ...], until: datetime
) -> Effect:
    if until > found.header.issued + MAX_SUSPENSION:
        raise Ignored("suspension-too-long", "until is more than 72 hours after issued")
    service = found.header.service
    named = (
        _measured(state, holder, measurement)
        for measurement in ids
        for holder in (state.holders(measurement) if service == LOG_SERVICE else (service,))
    )
    records = [record for record in named if record is not None]
    if not records:
        raise Ignored("unknown-measurement", "none of the measurement ids has a record")
    active = [record for record in records if record.status == "active"]
    if not active:
        raise Ignored("already-revoked", "everything it names is revoked")
    changed = [
        replace(record, suspended_until=max(until, record.suspended_until or until), reason=found.reason)
        for record in active
    ]
    return Effect(touched(changed, entry.index))
