"""The verification order: what holds is listed, and each step refuses alone, for its own reason and under its name."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import NAMES, Trail, Verdict
from quotary.client.verify import judge, verify_bundle, verify_proof, verify_release
from quotary.errors import InvalidProof, Judged, Malformed, NotInLog, Refused, Rejected, Usage
from quotary.statements.keys import key_measurement
from quotary.statements.records import MeasurementRecord, parse_record
from quotary.tlog import trie
from tests.client import spoiled_log, spoiled_machine, spoiled_release
from tests.client.spoiled_log import ask_no_witness, demand_more_entries, records, remember_more
from tests.client.spoiled_machine import flip
from tests.client.spoiled_release import demand_two_rebuilders, pin, pin_other_owners
from tests.fakes import authority
from tests.fakes.attempt import Attempt
from tests.fakes.authority import SERVICE
from tests.fakes.log import policy_bytes, tlog_policy
from tests.fakes.machine import FLOOR, NONCE, PRODUCT, SEED, World, registers
from tests.vectors.make_orders import CLOSED, FREEZE, ROTATION, order

Change = Callable[[Attempt], object]


def names_of(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks}


def test_a_machine_that_runs_a_released_image_is_accepted(world: World) -> None:
    attempt = Attempt.of(world)
    verdict = attempt.judge()
    assert verdict.measurement_id == world.measurement
    assert verdict.service == SERVICE
    assert verdict.release == authority.statement_id_of(world.release)
    assert {check.name for check in verdict.checks if ":" not in check.name} == NAMES
    assert {check.outcome for check in verdict.checks} == {"ok"}
    assert {f"evidence: {check.name}" for check in verdict.facts.checks} <= names_of(verdict)
    assert {"row: debug", "tcb floor (log): tcb status", "tcb floor (policy): tcb status"} <= names_of(
        verdict
    )
    assert verdict.simulated
    assert "SIMULATED" in verdict.headline
    assert "map auditor" not in verdict.headline


def test_what_was_accepted_is_remembered(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.judge()
    newest = attempt.memory.newest(world.log.origin)
    assert newest is not None
    assert newest.size == len(world.log.entries)
    assert newest.quorum_at == world.ts


# Each step

CASES = {**spoiled_machine.CASES, **spoiled_log.CASES, **spoiled_release.CASES}


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [(name, change, kind) for name, cases in CASES.items() for change, kind in cases],
    ids=lambda value: value.__name__ if callable(value) and not isinstance(value, type) else None,
)
def test_each_step_refuses_alone(world: World, name: str, change: Change, kind: type[Judged]) -> None:
    attempt = Attempt.of(world)
    change(attempt)
    with pytest.raises(kind) as raised:
        attempt.judge()
    assert raised.value.check == name
    assert type(raised.value) is kind
    *before, last = attempt.trail.checks
    assert (last.name, last.outcome) == (name, "failed")
    assert all(check.outcome == "ok" for check in before)


def test_owners_whom_no_delegation_names_are_said_to_be_missing(world: World) -> None:
    attempt = Attempt.of(world)
    pin_other_owners(attempt)
    with pytest.raises(Rejected, match="no delegation to the pinned owners"):
        attempt.judge()


def test_without_a_witness_no_age_is_claimed(world: World) -> None:
    attempt = Attempt.of(world)
    ask_no_witness(attempt)
    with pytest.raises(Refused, match="no witness vouches for a time"):
        attempt.judge()


# What is not checked says so


def test_without_a_nonce_freshness_is_not_claimed(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.nonce = None
    attempt.document = world.document(nonce=None)
    checks = {check.name: check.outcome for check in attempt.judge().checks}
    assert checks["nonce"] == "not checked"
    assert checks["binding"] == "ok"


def test_what_the_policy_does_not_demand_is_said_in_the_verdict(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.policy |= {"map_auditor": "none", "rebuilders": "none"}
    attempt.policy["platforms"]["sim-tdx"]["floors"] = "log"
    verdict = attempt.judge()
    checks = {check.name: check for check in verdict.checks}
    assert checks["rebuilders"].outcome == "not checked"
    assert "alone (map auditor: none)" in checks["state"].by
    assert "map auditor: none" in verdict.headline


def test_devices_that_nothing_demands_are_not_checked(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.document = world.document(devices=b"devices")
    checks = {check.name: check.outcome for check in attempt.judge().checks}
    assert checks["devices"] == "not checked"


def test_a_suspension_ends(world: World) -> None:
    attempt = Attempt.of(world)
    world.log.append(world.log.maker.revocation([SEED], suspend=timedelta(minutes=10)))
    attempt.renew()
    later = world.now + timedelta(minutes=10)
    world.log.close(int(later.timestamp()))
    attempt.bundle = world.log.bundle(world.measurement, product=PRODUCT, ts=int(later.timestamp()))
    attempt.now = later
    assert attempt.judge()


def test_a_lowered_floor_counts_only_from_its_day(world: World) -> None:
    maker = world.log.maker
    lower = {**FLOOR, "evaluation_number": 19}
    world.log.append(maker.floor(product=PRODUCT, floor=lower, signers=["root1", "root2"]))
    attempt = Attempt.of(world)
    attempt.renew()
    assert attempt.judge()


# Absence


def test_a_proven_absence_is_not_in_the_log(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.document = world.document(found=registers("unknown"))
    attempt.bundle = world.log.absence(authority.measurement("unknown"), ts=world.ts)
    with pytest.raises(NotInLog, match=r"has no measurement .* of chat among its 7 entries"):
        attempt.judge()
    assert attempt.trail.checks[-1].found == "no record for chat"


def test_an_absence_of_something_else_proves_nothing(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.bundle = world.log.absence(authority.measurement("unknown"), ts=world.ts)
    with pytest.raises(Rejected, match="absence of the key"):
        attempt.judge()


def test_an_absence_without_proof_is_rejected(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.document = world.document(found=registers("unknown"))
    absence = world.log.absence(authority.measurement("unknown"), ts=world.ts)
    attempt.bundle = replace(absence, proof=flip(absence.proof))
    with pytest.raises(Rejected, match="records"):
        attempt.judge()


def test_a_measurement_of_another_release_is_no_row(world: World) -> None:
    other = world.log.maker.release(rows=[authority.row("other")])
    world.log.append(other, world.log.maker.rebuild(other, {"other": True}))
    attempt = Attempt.of(world)
    attempt.renew()
    attempt.document = world.document(found=registers("other"))
    with pytest.raises(Rejected, match="no record of"):
        attempt.judge()
    key = key_measurement(SERVICE, authority.measurement("other"))
    attempt.change_bundle(records=(world.log.proven(key), *records(attempt)[1:]))
    with pytest.raises(Rejected, match="a record of release"):
        attempt.judge()


def test_a_measurement_revoked_before_any_release_is_refused(world: World) -> None:
    attempt = Attempt.of(world)
    world.log.append(world.log.maker.revocation(["stolen"], signers=["security1"]))
    world.log.close(world.ts)
    bundle = world.log.bundle(authority.measurement("stolen"), ts=world.ts)
    assert bundle.release is None
    attempt.document, attempt.bundle = world.document(found=registers("stolen")), bundle
    with pytest.raises(Refused, match="status: found revoked: CVE-2026-0001"):
        attempt.judge()


def test_a_bundle_without_release_and_without_revocation_is_rejected(world: World) -> None:
    attempt = Attempt.of(world)
    attempt.change_bundle(release=None)
    with pytest.raises(Rejected, match="no release"):
        attempt.judge()


def test_a_bundle_that_is_none_is_malformed(world: World) -> None:
    attempt = Attempt.of(world)
    policy = Policy.parse(policy_bytes(attempt.policy))
    with pytest.raises(Malformed):
        judge(attempt.document, NONCE, b"{}", policy, attempt.memory, FixedClock(world.now))


def test_production_refuses_simulated_evidence_on_sight(world: World) -> None:
    attempt = Attempt.of(world)
    origin = "log.example.org/tee"
    rules = attempt.policy["platforms"].pop("sim-tdx")
    del rules["simulator_root_sha256"]
    attempt.policy |= {
        "environment": "production",
        "platforms": {"tdx": rules},
        "tlog_policy": tlog_policy(origin),
    }
    with pytest.raises(Refused, match="simulated evidence") as raised:
        attempt.judge()
    assert raised.value.check == "evidence"
    assert len(attempt.trail.checks) == 1


# Owners


def test_owners_may_change_and_the_policy_may_pin_the_new_ones(world: World) -> None:
    log, maker = world.log, world.log.maker
    roles = {"owner": authority.role(["owner4"], 1), "builder": authority.role(["builder1"], 1)}
    named = authority.keys("owner4", "builder1")
    log.append(maker.delegation(keys=named, roles=roles))
    log.append(
        maker.delegation(
            signers=["owner4"],
            keys=authority.keys("owner4", "builder2"),
            roles={"owner": authority.role(["owner4"], 1), "builder": authority.role(["builder2"], 1)},
        )
    )
    release = maker.release(rows=[authority.row(SEED)], signers=["builder2"])
    log.append(release, maker.rebuild(release, {SEED: True}))
    attempt = Attempt.of(world)
    attempt.renew()
    assert attempt.judge().release == authority.statement_id_of(release)
    pin(attempt, "owner4")
    assert attempt.judge().release == authority.statement_id_of(release)


def test_builders_named_by_owners_whom_the_policy_no_longer_pins_do_not_count(world: World) -> None:
    log, maker = world.log, world.log.maker
    roles = {"owner": authority.role(["owner4"], 1), "builder": authority.role(["builder1"], 1)}
    log.append(maker.delegation(keys=authority.keys("owner4", "builder1"), roles=roles))
    release = maker.release(rows=[authority.row(SEED)])
    log.append(release, maker.rebuild(release, {SEED: True}))
    attempt = Attempt.of(world)
    attempt.renew()
    pin(attempt, "owner4")
    with pytest.raises(Rejected, match="0 signatures by builders"):
        attempt.judge()


# The smaller verifiers


def test_a_bundle_says_what_the_log_says_and_no_more(world: World) -> None:
    attempt = Attempt.of(world)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    for measurement in (None, world.measurement):
        found = verify_bundle(attempt.bundle.encode(), measurement, policy, ProcessMemory(), clock)
        assert found.measurement_id == world.measurement
        assert {check.name for check in found.checks if check.outcome == "not checked"} == {
            "evidence",
            "binding",
            "nonce",
            "row",
            "tcb floor",
            "devices",
        }
        assert "no machine was looked at" in found.headline
    policy = Policy.parse(policy_bytes({**attempt.policy, "map_auditor": "none"}))
    found = verify_bundle(attempt.bundle.encode(), None, policy, ProcessMemory(), clock)
    assert "map auditor: none" in found.headline


def test_a_bundle_of_another_measurement_is_rejected(world: World) -> None:
    attempt = Attempt.of(world)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    with pytest.raises(Rejected, match="no record of"):
        verify_bundle(attempt.bundle.encode(), bytes(32), policy, ProcessMemory(), clock)
    attempt.change_bundle(records=records(attempt)[1:])
    with pytest.raises(Rejected, match="no record of a measurement"):
        verify_bundle(attempt.bundle.encode(), None, policy, ProcessMemory(), clock)


@pytest.mark.parametrize(
    ("name", "change"),
    [("rollback", demand_more_entries), ("rollback", remember_more), ("rebuilders", demand_two_rebuilders)],
)
def test_a_bundle_or_proof_alone_is_held_to_the_policy_too(world: World, name: str, change: Change) -> None:
    attempt = Attempt.of(world)
    change(attempt)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    with pytest.raises(Refused) as raised:
        verify_bundle(attempt.bundle.encode(), world.measurement, policy, attempt.memory, clock)
    assert raised.value.check == name
    if name == "rollback":
        with pytest.raises(Refused) as raised:
            verify_proof(world.log.proof(0), world.log.entries[0], policy, attempt.memory, clock)
        assert raised.value.check == name


def test_an_absence_needs_the_measurement_that_it_is_about(world: World) -> None:
    policy, clock = Policy.parse(policy_bytes(world.policy())), FixedClock(world.now)
    absence = world.log.absence(authority.measurement("unknown"), ts=world.ts).encode()
    with pytest.raises(Usage):
        verify_bundle(absence, None, policy, ProcessMemory(), clock)
    with pytest.raises(NotInLog):
        verify_bundle(absence, authority.measurement("unknown"), policy, ProcessMemory(), clock)


def test_a_record_whose_release_has_no_such_row_is_rejected(world: World) -> None:
    # An id keeps the record of its release when a later release lists other ids only.
    attempt = Attempt.of(world)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    log = world.log
    key = key_measurement(SERVICE, authority.measurement("foreign"))
    record = parse_record(log.records[key_measurement(SERVICE, world.measurement)])
    assert isinstance(record, MeasurementRecord)
    log.records[key] = replace(record, measurement=authority.measurement("foreign")).encode()
    log.map_root = trie.insert(log.nodes, log.map_root, key, hashlib.sha256(log.records[key]).digest())
    log.close(world.ts)
    attempt.bundle = log.bundle(authority.measurement("foreign"), ts=world.ts)
    with pytest.raises(Rejected, match="a row of the release"):
        verify_bundle(attempt.bundle.encode(), None, policy, ProcessMemory(), clock)
    attempt.document = world.document(found=registers("foreign"))
    with pytest.raises(Rejected, match="one of 1 rows") as raised:
        attempt.judge()
    assert raised.value.check == "row"


def test_a_release_is_the_one_in_force_or_it_is_not(world: World) -> None:
    attempt = Attempt.of(world)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    bundle = attempt.bundle.encode()
    found = verify_release(world.release, bundle, policy, ProcessMemory(), clock)
    assert found.release == authority.statement_id_of(world.release)
    other = world.log.maker.release(rows=[authority.row("other")])
    with pytest.raises(Rejected, match="a bundle of another release"):
        verify_release(other, bundle, policy, ProcessMemory(), clock)


def test_a_bundle_without_a_release_is_of_no_release(world: World) -> None:
    attempt = Attempt.of(world)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    attempt.change_bundle(release=None)
    with pytest.raises(Rejected, match="no release"):
        verify_release(world.release, attempt.bundle.encode(), policy, ProcessMemory(), clock)
    absence = world.log.absence(authority.measurement("unknown"), ts=world.ts).encode()
    with pytest.raises(Usage):
        verify_release(world.release, absence, policy, ProcessMemory(), clock)


def test_a_proof_shows_that_an_entry_stands_in_the_log(world: World) -> None:
    policy, clock = Policy.parse(policy_bytes(world.policy())), FixedClock(world.now)
    proof = world.log.proof(4, world.ts)
    trail = Trail()
    found = verify_proof(proof, world.release, policy, ProcessMemory(), clock, trail)
    assert [(check.name, check.outcome) for check in trail.checks][-1] == ("inclusion", "ok")
    assert found.index == 4
    assert found.checkpoint.checkpoint.size == 7
    with pytest.raises(Rejected) as raised:
        verify_proof(proof, world.log.entries[3], policy, ProcessMemory(), clock)
    assert raised.value.check == "inclusion"
    assert isinstance(raised.value.__cause__, InvalidProof)


def test_a_bundle_is_verified_offline_in_ten_milliseconds(world: World) -> None:
    attempt = Attempt.of(world)
    policy, clock = Policy.parse(policy_bytes(attempt.policy)), FixedClock(world.now)
    bundle = attempt.bundle.encode()
    took = []
    for _ in range(10):
        started = time.process_time()
        verify_bundle(bundle, None, policy, ProcessMemory(), clock)
        took.append(time.process_time() - started)
    assert min(took) <= 0.010


def test_a_rotation_of_the_logs_keys_changes_no_verdict(world: World) -> None:
    world.log.order(order(ROTATION))
    assert Attempt.of(world).judge().release == authority.statement_id_of(world.release)


@pytest.mark.parametrize("content", [FREEZE, CLOSED], ids=["freeze", "shard-closed"])
def test_whoever_has_seen_the_end_of_a_log_refuses_what_its_keys_sign_afterwards(
    world: World, content: object
) -> None:
    made = order(content)  # type: ignore[arg-type]  # one of the two
    attempt = Attempt.of(world)
    attempt.judge()
    world.log.order(made)
    attempt.bundle = world.shown()
    with pytest.raises(Refused, match=f"a log that ended with the {made.kind} at entry") as refused:
        attempt.judge()
    assert refused.value.check == "state"
    for _ in range(2):
        # The thief of the keys goes on as if nothing had been said; the witnesses let him.
        world.log.append(world.log.maker.notice())
        attempt.renew()
        with pytest.raises(Refused, match="with which the log ended") as refused:
            attempt.judge()
        assert refused.value.check == "rollback"


def test_a_proof_of_absence_does_not_help_a_log_that_has_ended(world: World) -> None:
    world.log.order(order(FREEZE))
    policy, memory, clock = Policy.parse(policy_bytes(world.policy())), ProcessMemory(), FixedClock(world.now)
    absent = world.log.absence(b"\x07" * 32, ts=world.ts).encode()
    with pytest.raises(Refused, match="ended with the freeze"):
        verify_bundle(absent, b"\x07" * 32, policy, memory, clock)
