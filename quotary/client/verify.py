"""Where data becomes trusted: the verification order of design section 5, one call for each step.

``judge`` decides whether a machine may see a prompt. The smaller verifiers go through the steps that their
input allows. Nothing here returns a truth value: what comes back was proven, and everything else is an
exception that names the check. No clock, file or network but those that are passed in.
"""

from dataclasses import dataclass

from quotary.attestation.document import AttestationDocument
from quotary.client.authority import check_authority
from quotary.client.clock import Clock
from quotary.client.devices import require_devices
from quotary.client.evidence import (
    evidence_time,
    require_floor,
    require_row,
    verify_binding,
    verify_evidence,
)
from quotary.client.location import require_location
from quotary.client.policy import Policy
from quotary.client.standing import (
    Times,
    bound_age,
    check_checkpoint,
    check_records,
    check_release,
    check_state,
    proven_records,
    refuse_revoked,
    refuse_rollback,
    require_active,
    require_rebuilders,
)
from quotary.client.trust import Memory
from quotary.client.verdict import Standing, Trail, Verdict
from quotary.errors import NotInLog, Rejected, Usage
from quotary.statements.bundle import AbsenceBundle, Bundle, parse_bundle
from quotary.statements.keys import key_measurement
from quotary.statements.measurement import measurement_id
from quotary.statements.records import MeasurementRecord, parse_record
from quotary.tlog.merkle import leaf_hash, verify_inclusion
from quotary.tlog.policy import VerifiedCheckpoint
from quotary.tlog.proof import TlogProof
from quotary.tlog.trie import verify_absence as verify_trie_absence


def judge(
    document: AttestationDocument,
    nonce: bytes | None,
    bundle: bytes,
    policy: Policy,
    memory: Memory,
    clock: Clock,
    trail: Trail | None = None,
) -> Verdict:
    """Decide whether this machine may see a prompt, or raise what speaks against it.

     1. A vendor whose root the policy admits signed the evidence; that decides the platform.
     2. Its registers give the measurement id; its report data binds the keyset and our nonce.
     3. The checkpoint is this log's, under every listed log key and the witness quorum.
     4. It is not older than the policy's minimum and the newest that this verifier has accepted.
     5. The quorum's time is not too long ago.
     6. The last entry commits the status map F1, and the log goes on.
     7. The release stands in the log.
     8. Builders signed it whom the owners pinned in the policy appointed.
     9. The records stand in the status map, under keys that are computed here.
    10. The measurement is active: not revoked, suspended or ended.
    11. The release has a row for the measurement id, and the machine keeps the row's other rules.
    12. Its firmware reaches the product's floor, the logged one and the policy's own.
    13. Enough rebuilders built the same.
    14. The devices that the row demands are proven, each and together.
    15. The machine is in a place that the policy admits, where it does not admit any.

    nonce: 32 bytes that this verifier chose for this question; None leaves freshness unproven, and the
           verdict says so
    trail: takes the checks as they are made, so that a refusal can be shown with what held before it

    Raises ``Rejected`` and ``Refused`` with the name of the check, ``NotInLog`` for a proven absence,
    ``Malformed`` and ``Unsupported``.
    """
    trail = Trail() if trail is None else trail
    now = evidence_time(policy, memory, clock)
    facts = verify_evidence(document, policy, now, trail)
    keyset = verify_binding(document, nonce, facts, policy, now, trail)
    measurement = measurement_id(facts.platform, facts.registers)
    shown = parse_bundle(bundle)
    found = check_checkpoint(shown.checkpoint, policy, clock, trail)
    refuse_rollback(found, policy, memory, clock, trail)
    times = bound_age(found, policy, memory, clock, trail)
    root = check_state(shown, found, policy, memory, trail)
    known = _require_known(shown, root, measurement, policy, found, times, trail)
    released = check_release(known, found, policy, trail)
    newest = check_authority(known, released, found, policy, trail)
    records = check_records(known, root, released, newest, measurement, trail)
    record = require_active(records, released, measurement, times, trail)
    row = require_row(released, measurement, keyset, facts, document.event_log, policy, trail)
    require_floor(facts, records, policy, times, trail)
    require_rebuilders(record, policy, trail)
    require_devices(document, row, records, policy, now, times, trail)
    require_location(document.location, facts, policy, times, trail)
    return Verdict(
        service=released.statement.service,
        release=released.statement.statement_id,
        release_index=released.index,
        predicate=released.predicate,
        measurement_id=measurement,
        origin=found.checkpoint.origin,
        size=found.checkpoint.size,
        root=found.checkpoint.root,
        quorum_at=times.quorum_at,
        judged_at=times.latest,
        not_after=released.predicate.not_after,
        map_auditor=bool(policy.map_auditors),
        simulated=facts.simulated,
        facts=facts,
        keyset=keyset,
        checks=tuple(trail.checks),
    )


def verify_bundle(
    bundle: bytes,
    measurement: bytes | None,
    policy: Policy,
    memory: Memory,
    clock: Clock,
    trail: Trail | None = None,
) -> Standing:
    """Decide what the log says of a measurement, without a machine: steps 3 to 10 and 13.

    measurement: the id that the bundle must be about; None takes the release's first row that the bundle
                 proves
    """
    trail = Trail() if trail is None else trail
    shown = parse_bundle(bundle)
    found = check_checkpoint(shown.checkpoint, policy, clock, trail)
    refuse_rollback(found, policy, memory, clock, trail)
    times = bound_age(found, policy, memory, clock, trail)
    root = check_state(shown, found, policy, memory, trail)
    known = _require_known(shown, root, measurement, policy, found, times, trail)
    released = check_release(known, found, policy, trail)
    newest = check_authority(known, released, found, policy, trail)
    about = _subject(known, measurement)
    records = check_records(known, root, released, newest, about, trail)
    record = require_active(records, released, about, times, trail)
    if about not in {row.measurement for row in released.predicate.rows}:
        raise Rejected("row", f"measurement {about.hex()}", "a row of the release")
    require_rebuilders(record, policy, trail)
    for name in ("evidence", "binding", "nonce", "row", "tcb floor", "devices"):
        trail.not_checked(name, "no evidence of a machine was given", "evidence", "none")
    return Standing(
        service=released.statement.service,
        release=released.statement.statement_id,
        release_index=released.index,
        measurement_id=about,
        origin=found.checkpoint.origin,
        size=found.checkpoint.size,
        quorum_at=times.quorum_at,
        not_after=released.predicate.not_after,
        map_auditor=bool(policy.map_auditors),
        simulated=policy.simulation,
        checks=tuple(trail.checks),
    )


def verify_release(
    entry: bytes,
    bundle: bytes,
    policy: Policy,
    memory: Memory,
    clock: Clock,
    trail: Trail | None = None,
) -> Standing:
    """Decide whether this very entry is the release in force, by a bundle of one of its rows."""
    trail = Trail() if trail is None else trail
    shown = parse_bundle(bundle)
    if not isinstance(shown, Bundle) or shown.release is None or shown.release.entry != entry:
        verify_bundle(bundle, None, policy, memory, clock, trail)
        raise Rejected("release inclusion", "a bundle of another release", "the entry that was given")
    return verify_bundle(bundle, None, policy, memory, clock, trail)


@dataclass(frozen=True, slots=True)
class Included:
    """An entry that stands in the log; what it says, and whether it still holds, is not decided by that."""

    index: int
    leaf_hash: bytes
    checkpoint: VerifiedCheckpoint
    times: Times


def verify_proof(
    proof: bytes, entry: bytes, policy: Policy, memory: Memory, clock: Clock, trail: Trail | None = None
) -> Included:
    """Prove that an entry stands in the log: steps 3 to 5, and its inclusion."""
    trail = Trail() if trail is None else trail
    parsed = TlogProof.parse(proof)
    found = check_checkpoint(parsed.checkpoint_note, policy, clock, trail)
    refuse_rollback(found, policy, memory, clock, trail)
    times = bound_age(found, policy, memory, clock, trail)
    size, digest = found.checkpoint.size, leaf_hash(entry)
    wanted, anchor = f"leaf hash {digest.hex()} at index {parsed.index}", f"root at {size} entries"
    with trail.step("inclusion", wanted, anchor):
        verify_inclusion(parsed.index, size, digest, parsed.path, found.checkpoint.root)
        trail.held("inclusion", f"{len(parsed.path)} hashes lead to the root", wanted, anchor)
    return Included(parsed.index, digest, found, times)


@dataclass(frozen=True, slots=True)
class Absent:
    """A measurement that the log's status map did not hold under a verified checkpoint."""

    service: str
    measurement_id: bytes
    origin: str
    size: int


def verify_absence(
    bundle: AbsenceBundle,
    root: bytes,
    measurement: bytes,
    policy: Policy,
    found: VerifiedCheckpoint,
    trail: Trail,
) -> Absent:
    """Prove that the map with this root has no record of the measurement for a service of the policy."""
    wanted, anchor = f"absence of {measurement.hex()}", f"map root {root.hex()}"
    with trail.step("records", wanted, anchor):
        for service in policy.services:
            if bundle.key == key_measurement(service, measurement):
                verify_trie_absence(root, bundle.key, bundle.proof)
                trail.held("records", f"no record for {service}", wanted, anchor)
                return Absent(service, measurement, policy.origin, found.checkpoint.size)
        raise Rejected("records", f"absence of the key {bundle.key.hex()}", wanted)


def _require_known(
    shown: Bundle | AbsenceBundle,
    root: bytes,
    measurement: bytes | None,
    policy: Policy,
    found: VerifiedCheckpoint,
    times: Times,
    trail: Trail,
) -> Bundle:
    """Go on with a bundle that shows a release; absence and revocation before any release end here."""
    if isinstance(shown, AbsenceBundle):
        if measurement is None:
            raise Usage("a proof of absence says nothing without the measurement that it is about")
        absent = verify_absence(shown, root, measurement, policy, found, trail)
        raise NotInLog(
            f"{absent.origin} has no measurement {measurement.hex()} of {absent.service} "
            f"among its {absent.size} entries"
        )
    if shown.release is None:
        with trail.step("status", "a release that is active", f"map root {root.hex()}"):
            for record in proven_records(shown, root).values():
                if isinstance(record, MeasurementRecord) and record.measurement == (
                    measurement or record.measurement
                ):
                    refuse_revoked(record, times)
            raise Rejected("release inclusion", "no release", "a release")
    return shown


def _subject(bundle: Bundle, measurement: bytes | None) -> bytes:
    """Give the id that was asked for, or the one that the bundle's records are about."""
    if measurement is not None:
        return measurement
    for proven in bundle.records:
        record = parse_record(proven.record)
        if isinstance(record, MeasurementRecord):
            return record.measurement
    raise Rejected("records", "no record of a measurement", "one")
