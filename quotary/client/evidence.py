"""What a machine's evidence proves: steps 1, 2, 11 and 12 of the verification order (design section 5).

Each function is one step: it records its check and returns what it proved, or raises. Which platform a
piece of evidence is of is decided by the root that verified it, never by a label beside it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from quotary.attestation.binding import (
    Binding,
    devices_digest,
    keyset_digest,
    verify_report_data,
)
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.attestation.facts import Facts
from quotary.attestation.measure.profiles import profile_sha256, tdx_profile
from quotary.attestation.measure.rtmr0 import Replay, material_digests
from quotary.attestation.roots import VENDOR_ROOTS, Root, simulator_root
from quotary.canonical import time_text
from quotary.client.clock import Clock
from quotary.client.demands import meet_documents, meet_machines
from quotary.client.platforms import NO_VERSION, platform_of, read_evidence
from quotary.client.policy import Policy
from quotary.client.standing import Released, Times
from quotary.client.trust import Memory, least_time
from quotary.client.verdict import Trail
from quotary.errors import Refused, Rejected, Unsupported
from quotary.statements.keys import key_tcb
from quotary.statements.keyset import Keyset
from quotary.statements.records import Record, TCBRecord
from quotary.statements.row import Row
from quotary.tlog.merkle import leaf_hash, root_from_path


def evidence_time(policy: Policy, memory: Memory, clock: Clock) -> datetime:
    """Give the time for certificates and keys; a clock set back is held at what is known to have been."""
    newest = memory.newest(policy.origin)
    least = 0 if newest is None else least_time(newest, clock.elapsed())
    return max(clock.now(), policy.minimum_at, datetime.fromtimestamp(least, UTC))


def verify_evidence(document: AttestationDocument, policy: Policy, now: datetime, trail: Trail) -> Facts:
    """1. A vendor whose root the policy admits signed the evidence, under collateral that is in date.

    Where the policy pins documents the collateral's are among them.
    """
    roots = admitted_roots(policy)
    anchor = ", ".join(root.name for root in roots)
    wanted = f"evidence of {' or '.join(policy.platforms)}, signed under an admitted root"
    with trail.step("evidence", wanted, anchor):
        _, evidence = read_evidence(document.evidence, policy.platforms)
        facts = evidence.verify(document.collateral, now, roots)
        trail.vendor("evidence", facts.checks)
        demands = policy.platforms[facts.platform].demands
        trail.vendor("evidence", meet_documents(document.collateral, demands))
        trail.held("evidence", f"{facts.platform} {facts.product}, {facts.tcb.status}", wanted, anchor)
    return facts


def verify_binding(
    document: AttestationDocument,
    nonce: bytes | None,
    facts: Facts,
    policy: Policy,
    now: datetime,
    trail: Trail,
) -> Keyset:
    """2. Report data binds keyset, devices, log and our nonce; the keyset is within its hour."""
    wanted, anchor = "keyset, devices, log and nonce as presented", "report data in the evidence"
    with trail.step("binding", wanted, anchor):
        binding = Binding.parse(document.binding)
        keyset = Keyset.parse(document.keyset)
        _require_digest("keyset", binding.keyset, keyset_digest(document.keyset))
        devices = None if document.devices is None else devices_digest(document.devices)
        _require_digest("devices", binding.devices, devices)
        if binding.origin != policy.origin:
            raise Rejected("binding", f"a machine that watches {binding.origin}", policy.origin)
        # Without a nonce of ours the second half proves nothing, and is taken as it is.
        root = facts.report_data[32:] if nonce is None else _nonce_root(document.nonce, nonce)
        verify_report_data(facts.report_data, document.binding, root)
        keyset.check_valid_at(now)
        trail.held("binding", f"keyset {binding.keyset.hex()}", wanted, anchor)
    if nonce is None:
        trail.not_checked("nonce", "none was sent", "a nonce of this verifier", anchor)
    else:
        trail.held("nonce", nonce.hex(), "the nonce of this verifier", anchor)
    return keyset


def require_row(
    released: Released,
    measurement: bytes,
    keyset: Keyset,
    facts: Facts,
    event_log: bytes | None,
    policy: Policy,
    trail: Trail,
) -> Row:
    """11. The release has a row for the measurement id; the machine keeps its rules, the policy's demands of
    the evidence, and its service.
    """
    rows = released.predicate.rows
    wanted, anchor = "the row of this measurement id, its rules kept", "row of the release"
    with trail.step("row", wanted, anchor):
        row = next((row for row in rows if row.measurement == measurement), None)
        if row is None:
            raise Rejected("row", f"measurement {measurement.hex()}", f"one of {len(rows)} rows")
        replay = _replay(row, released, event_log)
        demands = policy.platforms[facts.platform].demands
        trail.vendor("row", platform_of(facts.platform).requirements(facts, row.require, demands, replay))
        trail.vendor("row", meet_machines(facts, demands))
        if keyset.service != released.statement.service:
            raise Rejected("row", f"keys for {keyset.service}", released.statement.service)
        trail.held("row", f"{row.platform}, profile {row.profile}", wanted, anchor)
    return row


def require_floor(
    facts: Facts, records: Mapping[bytes, Record], policy: Policy, times: Times, trail: Trail
) -> None:
    """12. The firmware reaches the product's logged floor, which is in force, and the policy's own.

    A platform whose vendor attests no firmware version has no floor: that is said, and a policy that demands
    its own one there is not met.
    """
    wanted = f"the floor of {facts.platform} {facts.product}"
    anchor = "TCB record in the status map, and the policy"
    meet_floor, own = platform_of(facts.platform).floor, policy.platforms[facts.platform].floors
    with trail.step("tcb floor", wanted, anchor):
        if meet_floor is None:
            if own is not None:
                raise Refused("tcb floor", NO_VERSION, "the policy's own floor; write log for this platform")
            trail.not_checked("tcb floor", NO_VERSION, wanted, anchor)
            return
        record = records.get(key_tcb(facts.platform, facts.product))
        if not isinstance(record, TCBRecord):
            raise Refused("tcb floor", "no logged floor", wanted)
        logged = record.at(times.earliest)
        if times.latest >= logged.expires:
            raise Refused("tcb floor", f"one that ended at {time_text(logged.expires)}", "a floor in force")
        trail.vendor("tcb floor (log)", meet_floor(facts, logged.floor))
        if own is not None:
            if facts.product not in own:
                raise Refused("tcb floor", f"product {facts.product}", f"one of {', '.join(own) or 'none'}")
            trail.vendor("tcb floor (policy)", meet_floor(facts, own[facts.product]))
        trail.held("tcb floor", f"reached, set by {logged.statement}", wanted, anchor)


def _replay(row: Row, released: Released, event_log: bytes | None) -> Replay | None:
    """What RTMR0 is explained with where the row does not give exact values."""
    if row.require.rtmr0 is None or not row.require.rtmr0.free:
        return None
    profile = tdx_profile(row.profile)
    if profile_sha256(row.profile) != row.profile_sha256:
        raise Unsupported(f"the release's {row.profile} is not the one that this version knows")
    memory = (row.shape or {}).get("memory_bytes")
    return Replay(event_log, profile, material_digests(released.predicate.material, memory))


def admitted_roots(policy: Policy) -> tuple[Root, ...]:
    """Give the roots that a policy's evidence may end in: vendors', or those of its simulators."""
    if not policy.simulation:
        return VENDOR_ROOTS
    return tuple(
        simulator_root(name.removeprefix("sim-"), rules.simulator_root)
        for name, rules in policy.platforms.items()
        if rules.simulator_root is not None
    )


def _require_digest(what: str, bound: bytes | None, found: bytes | None) -> None:
    if bound != found:
        said = f"{what} {'none' if found is None else found.hex()}"
        raise Rejected("binding", said, f"{'none' if bound is None else bound.hex()}, as bound")


def _nonce_root(place: NonceProof, nonce: bytes) -> bytes:
    if place.size == 0:
        raise Rejected("nonce", "evidence that answers no nonce", nonce.hex())
    return root_from_path(place.index, place.size, leaf_hash(nonce), place.path)
