"""What a log's bundle proves: steps 3 to 7, 9, 10 and 13 of the verification order (design section 5).

Each function is one step: it takes what the steps before it proved, records its check and returns what it
proved, or raises. Nothing is asked of a network and nothing the bundle says is believed before its proof
has held.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from quotary.canonical import time_text
from quotary.client.clock import Clock
from quotary.client.policy import Policy
from quotary.client.trust import Accepted, Memory, least_time
from quotary.client.verdict import Trail
from quotary.errors import Refused, Rejected
from quotary.statements.bundle import AbsenceBundle, Bundle, Included
from quotary.statements.envelope import Envelope
from quotary.statements.keys import key_measurement, key_service
from quotary.statements.records import MeasurementRecord, Record, ServiceRecord, parse_record
from quotary.statements.release import Release
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.state_entry import MAP_FUNCTION, StateEntry
from quotary.tlog.merkle import leaf_hash, verify_inclusion
from quotary.tlog.policy import VerifiedCheckpoint
from quotary.tlog.trie import verify_presence


@dataclass(frozen=True, slots=True)
class Times:
    """Between which moments this judgement happens.

    quorum_at: what the witnesses vouch for
    earliest:  it cannot be earlier: quorum, policy and memory say so
    latest:    the later of that and the local clock
    """

    quorum_at: datetime
    earliest: datetime
    latest: datetime


@dataclass(frozen=True, slots=True)
class Released:
    """The release that a bundle shows, included in the log."""

    index: int
    statement: Statement
    predicate: Release
    envelope: Envelope


def check_checkpoint(note: bytes, policy: Policy, clock: Clock, trail: Trail) -> VerifiedCheckpoint:
    """3. The checkpoint is this log's: every listed key signed it, and the quorum cosigned it."""
    wanted = f"all {len(policy.tlog.logs)} listed keys and the quorum {policy.tlog.quorum}"
    anchor = f"tlog policy of {policy.origin}"
    with trail.step("checkpoint", wanted, anchor):
        found = policy.tlog.verify(note, now=int(clock.now().timestamp()))
        checkpoint = found.checkpoint
        cosigners = ", ".join(sorted(found.cosignatures)) or "nobody"
        said = f"{checkpoint.size} entries, root {checkpoint.root.hex()}, cosigned by {cosigners}"
        trail.held("checkpoint", said, wanted, anchor)
    return found


def refuse_rollback(
    found: VerifiedCheckpoint, policy: Policy, memory: Memory, clock: Clock, trail: Trail
) -> None:
    """4. It is not before the policy's minimum nor before what was accepted here; now it is accepted."""
    checkpoint, quorum_at = found.checkpoint, found.quorum_time or 0
    before = memory.newest(policy.origin)
    wanted = f"at least {policy.minimum_size} entries, quorum time {time_text(policy.minimum_at)} or later"
    anchor = f"the policy; {'nothing' if before is None else f'{before.size} entries'} accepted here before"
    with trail.step("rollback", wanted, anchor):
        if checkpoint.size < policy.minimum_size:
            raise Refused("rollback", f"{checkpoint.size} entries", wanted)
        if quorum_at < policy.minimum_at.timestamp():
            raise Refused("rollback", f"quorum time {_time(quorum_at)}", wanted)
        note = bytes(found.note)
        memory.accept(
            Accepted(policy.origin, checkpoint.size, checkpoint.root, note, quorum_at, clock.elapsed())
        )
        trail.held("rollback", f"{checkpoint.size} entries, quorum time {_time(quorum_at)}", wanted, anchor)


def bound_age(found: VerifiedCheckpoint, policy: Policy, memory: Memory, clock: Clock, trail: Trail) -> Times:
    """5. The quorum's time is at most ``max_age_seconds`` before the latest that it can be now."""
    newest = memory.newest(policy.origin)
    least = 0 if newest is None else least_time(newest, clock.elapsed())
    quorum_at = datetime.fromtimestamp(found.quorum_time or 0, UTC)
    earliest = max(quorum_at, policy.minimum_at, datetime.fromtimestamp(least, UTC))
    times = Times(quorum_at, earliest, max(earliest, clock.now()))
    wanted, anchor = f"at most {policy.max_age_seconds} s", "quorum time and the local clock"
    with trail.step("age", wanted, anchor):
        if found.quorum_time is None:
            raise Refused("age", "no witness vouches for a time", wanted)
        age = (times.latest - quorum_at).total_seconds()
        if age > policy.max_age_seconds:
            raise Refused("age", f"{age:.0f} s", wanted)
        trail.held("age", f"{age:.0f} s", wanted, anchor)
    return times


def check_state(
    bundle: Bundle | AbsenceBundle, found: VerifiedCheckpoint, policy: Policy, memory: Memory, trail: Trail
) -> bytes:
    """6. The last entry under the checkpoint is the state entry of a log that goes on; give its map's root.

    A log that has ended cannot say that something was revoked since, so nothing is accepted on its word.
    """
    last = found.checkpoint.size - 1
    anchor = f"root at {found.checkpoint.size} entries"
    with trail.step("state", f"the state entry at index {last}", anchor):
        included(bundle.state, found)
        state = StateEntry.parse(bundle.state.entry)
        if not bundle.state.index == state.index == last:
            said = f"entry {bundle.state.index} that says {state.index}"
            raise Rejected("state", said, f"index {last}, the last of {found.checkpoint.size}")
        if state.end is not None:
            memory.end(policy.origin)
            said = f"a log that ended with the {state.end} at entry {last - 1}"
            raise Refused("state", said, "a log that goes on")
        root = state.maps.get(MAP_FUNCTION)
        if root is None:
            raise Refused("state", f"no map {MAP_FUNCTION}", f"a root of the map {MAP_FUNCTION}")
        _audited(root, found, policy, trail)
    return root


def check_release(bundle: Bundle, found: VerifiedCheckpoint, policy: Policy, trail: Trail) -> Released:
    """7. The release stands in the log, is of this log, and of a service that the policy names."""
    wanted, anchor = "a release under the checkpoint", f"root at {found.checkpoint.size} entries"
    with trail.step("release inclusion", wanted, anchor):
        assert bundle.release is not None, "a bundle without release ends before this step"
        included(bundle.release, found)
        envelope = Envelope.parse(bundle.release.entry)
        statement = parse_statement(envelope.payload)
        if not isinstance(statement.predicate, Release):
            raise Rejected("release inclusion", f"a {statement.kind}", wanted)
        if statement.log != policy.origin or statement.service not in policy.services:
            said = f"a release of {statement.service} for {statement.log}"
            raise Refused(
                "release inclusion", said, f"one of {', '.join(policy.services)} for {policy.origin}"
            )
        said = f"{statement.statement_id} at index {bundle.release.index}"
        trail.held("release inclusion", said, wanted, anchor)
    return Released(bundle.release.index, statement, statement.predicate, envelope)


def check_records(
    bundle: Bundle, root: bytes, released: Released, newest_delegation: str, measurement: bytes, trail: Trail
) -> Mapping[bytes, Record]:
    """9. Every record is in the status map, under the key that its own names give.

    Among them are the measurement's and the service's; the latter names the newest delegation, so that the
    chain which the bundle showed is all of it.
    """
    service = released.statement.service
    wanted = f"records of the measurement and of {service} with delegation {newest_delegation}"
    with trail.step("records", wanted, f"map {MAP_FUNCTION} root {root.hex()}"):
        records = proven_records(bundle, root)
        own = records.get(key_service(service))
        if not isinstance(own, ServiceRecord) or own.delegation != newest_delegation:
            said = own.delegation if isinstance(own, ServiceRecord) else "none"
            raise Rejected("records", f"newest delegation {said}", newest_delegation)
        if not isinstance(records.get(key_measurement(service, measurement)), MeasurementRecord):
            raise Rejected("records", f"no record of {measurement.hex()}", wanted)
        said = f"{len(records)} records, each under its recomputed key"
        trail.held("records", said, wanted, f"map {MAP_FUNCTION} root {root.hex()}")
    return records


def proven_records(bundle: Bundle, root: bytes) -> dict[bytes, Record]:
    """Give a bundle's records by key, each proven in the map; ``InvalidProof`` for one that is not."""
    records: dict[bytes, Record] = {}
    for proven in bundle.records:
        record = parse_record(proven.record)
        verify_presence(root, record.key, hashlib.sha256(proven.record).digest(), proven.proof)
        records[record.key] = record
    return records


def require_active(
    records: Mapping[bytes, Record], released: Released, measurement: bytes, times: Times, trail: Trail
) -> MeasurementRecord:
    """10. The measurement is active under this very release, whatever moment between the times it is now."""
    record = records[key_measurement(released.statement.service, measurement)]
    assert isinstance(record, MeasurementRecord), "the records were checked in the step before"
    wanted = f"active, under release {released.statement.statement_id}"
    anchor = f"record of {record.measurement.hex()}, entries {record.first} to {record.last}"
    with trail.step("status", wanted, anchor):
        refuse_revoked(record, times)
        if record.release != released.statement.statement_id:
            raise Rejected("status", f"a record of release {record.release}", wanted)
        ends = released.predicate.not_after
        if times.latest >= ends:
            raise Refused("status", f"ended at {time_text(ends)}", "a release in force")
        trail.held("status", f"active until {time_text(ends)}", wanted, anchor)
    return record


def refuse_revoked(record: MeasurementRecord, times: Times) -> None:
    """Refuse a measurement that the log has revoked, or has suspended until later than now."""
    if record.status != "active":
        raise Refused("status", f"revoked: {record.reason or 'no reason given'}", "active")
    if record.suspended_until is not None and times.earliest < record.suspended_until:
        until = time_text(record.suspended_until)
        raise Refused("status", f"suspended until {until}: {record.reason or 'no reason given'}", "active")


def require_rebuilders(record: MeasurementRecord, policy: Policy, trail: Trail) -> None:
    """13. Enough of the policy's rebuilders, of different organisations, built the same, none another."""
    demanded, anchor = policy.rebuilders, f"record of {record.measurement.hex()}"
    if demanded is None:
        trail.not_checked("rebuilders", "the policy says none", "none", "the policy")
        return
    wanted = f"{demanded.needed} of {demanded.count} listed rebuilders match, none differs"
    with trail.step("rebuilders", wanted, anchor):
        marks = [mark for mark in record.rebuilders if mark.key in demanded.keys]
        for mark in marks:
            if mark.verdict == "mismatch":
                raise Refused("rebuilders", f"{mark.key} built something else (entry {mark.index})", wanted)
        matching = sorted(mark.key for mark in marks if mark.verdict == "match")
        agreeing = {demanded.organisations[key] for key in matching}
        if len(agreeing) < demanded.needed:
            raise Refused("rebuilders", f"{len(agreeing)} match", wanted)
        by = [_named(key, demanded.organisations[key]) for key in matching]
        trail.held("rebuilders", f"{len(agreeing)} match", wanted, anchor, by=", ".join(by))


def _named(key: str, organisation: str) -> str:
    return key if organisation == key else f"{organisation} ({key})"


def included(item: Included, found: VerifiedCheckpoint) -> None:
    """Require that an entry stands under the checkpoint; ``InvalidProof`` if not."""
    checkpoint = found.checkpoint
    verify_inclusion(item.index, checkpoint.size, leaf_hash(item.entry), item.path, checkpoint.root)


def _audited(root: bytes, found: VerifiedCheckpoint, policy: Policy, trail: Trail) -> None:
    wanted = f"root of the map {MAP_FUNCTION}, recomputed by {' and '.join(policy.map_auditors) or 'nobody'}"
    missing = [name for name in policy.map_auditors if name not in found.cosignatures]
    if missing:
        raise Refused("state", f"no cosignature by the map auditor {missing[0]}", wanted)
    by = ", ".join(policy.map_auditors) or f"{policy.origin} alone (map auditor: none)"
    trail.held("state", f"map {MAP_FUNCTION} root {root.hex()}", wanted, "the log's last entry", by)


def _time(seconds: int) -> str:
    return time_text(datetime.fromtimestamp(seconds, UTC))
