"""The verification order: what holds is listed, and each step refuses alone, for its own reason and under its name."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from quotary.attestation.document import NonceProof
from quotary.canonical import time_text
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import Accepted, ProcessMemory
from quotary.client.verdict import NAMES, Trail, Verdict
from quotary.client.verify import judge, verify_bundle, verify_proof, verify_release
from quotary.errors import InvalidProof, Judged, Malformed, NotInLog, Refused, Rejected, Unsupported, Usage
from quotary.statements.bundle import Bundle, Included, Proven
from quotary.statements.envelope import Envelope
from quotary.statements.keys import key_measurement
from quotary.statements.order import Order
from quotary.statements.records import MeasurementRecord, parse_record
from quotary.tlog import trie
from simulator.pki import PKI
from simulator.tcb import CURRENT
from simulator.tdx import Platform
from tests.fakes import authority
from tests.fakes.attempt import Attempt
from tests.fakes.authority import SERVICE
from tests.fakes.log import AUDITOR, WITNESS, policy_bytes, signed_note, tlog_policy
from tests.fakes.machine import FLOOR, NONCE, PRODUCT, SEED, World, keyset, registers
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


def flip(data: bytes, position: int = -1) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


# 1. evidence


def break_quote(attempt: Attempt) -> None:
    # The quote's own signature starts behind header and body (48 + 584) and a length.
    attempt.change_document(evidence=flip(attempt.document.evidence, 48 + 584 + 4))


def change_registers(attempt: Attempt) -> None:
    attempt.change_document(evidence=flip(attempt.document.evidence, 48 + 136))


def admit_another_root(attempt: Attempt) -> None:
    attempt.policy["platforms"]["sim-tdx"]["simulator_root_sha256"] = "ab" * 32


def expire_collateral(attempt: Attempt) -> None:
    attempt.now += timedelta(days=31)


# 2. binding and nonce


def swap_keyset(attempt: Attempt) -> None:
    attempt.change_document(keyset=keyset(b"\x01" * 1216).encode())


def swap_binding(attempt: Attempt) -> None:
    attempt.change_document(binding=attempt.world.document(keys=keyset(b"\x01" * 1216)).binding)


def swap_binding_and_keyset(attempt: Attempt) -> None:
    other = attempt.world.document(keys=keyset(b"\x01" * 1216))
    attempt.change_document(binding=other.binding, keyset=other.keyset)


def watch_another_log(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(origin="other.example.org/simulation")


def show_unbound_devices(attempt: Attempt) -> None:
    attempt.change_document(devices=b"devices of another machine")


def hide_bound_devices(attempt: Attempt) -> None:
    attempt.document = replace(attempt.world.document(devices=b"devices"), devices=None)


def outlive_the_keyset(attempt: Attempt) -> None:
    old = keyset(attempt.world.channel.public, at=attempt.world.now - timedelta(hours=2))
    attempt.document = attempt.world.document(keys=old)


def answer_another_nonce(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(nonce=bytes(32))


def answer_no_nonce(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(nonce=None)


def claim_another_place(attempt: Attempt) -> None:
    attempt.change_document(nonce=NonceProof(0, 2, (bytes(32),)))


# 3. checkpoint


def drop_a_log_signature(attempt: Attempt) -> None:
    attempt.change_bundle(
        checkpoint=signed_note(attempt.world.log.checkpoint, attempt.world.ts, log_signers=1)
    )


def drop_a_witness(attempt: Attempt) -> None:
    attempt.change_bundle(checkpoint=signed_note(attempt.world.log.checkpoint, attempt.world.ts, [AUDITOR]))


def change_the_checkpoint(attempt: Attempt) -> None:
    attempt.change_bundle(checkpoint=attempt.bundle.checkpoint.replace(b"\n7\n", b"\n8\n"))


def come_from_the_future(attempt: Attempt) -> None:
    attempt.change_bundle(checkpoint=attempt.world.log.note(attempt.world.ts + 301))


# 4. rollback


def remember(attempt: Attempt, size: int, root: bytes, later: int = 0) -> None:
    at = attempt.world.ts + later
    attempt.memory.accept(Accepted(attempt.world.log.origin, size, root, b"note\n", at, 0.0))


def remember_more(attempt: Attempt) -> None:
    remember(attempt, 8, bytes(32))


def remember_another_tree(attempt: Attempt) -> None:
    remember(attempt, 7, bytes(32))


def demand_more_entries(attempt: Attempt) -> None:
    attempt.policy["minimum"]["size"] = 8


def demand_a_later_time(attempt: Attempt) -> None:
    attempt.policy["minimum"]["time"] = time_text(attempt.world.now + timedelta(seconds=1))


# 5. age


def wait_too_long(attempt: Attempt) -> None:
    attempt.now += timedelta(seconds=901)


def know_a_later_time(attempt: Attempt) -> None:
    remember(attempt, 3, bytes(32), later=901)


def ask_no_witness(attempt: Attempt) -> None:
    attempt.policy |= {"map_auditor": "none", "minimum": {"size": 1, "time": "1970-01-01T00:00:00Z"}}
    attempt.policy["tlog_policy"] = attempt.policy["tlog_policy"].replace("quorum both", "quorum none")


# 6. state


def show_an_older_state(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.notice())
    older = attempt.world.log.included(len(attempt.world.log.entries) - 2)
    attempt.world.log.close(attempt.world.ts)
    older = attempt.world.log.included(older.index)
    attempt.bundle = attempt.world.log.bundle(attempt.world.measurement, ts=attempt.world.ts)
    attempt.change_bundle(state=older)


def show_a_state_that_stands_elsewhere(attempt: Attempt) -> None:
    log = attempt.world.log
    log.entries[3] = log.entries[-1].replace(b'"ts":', b'"ts":1')
    attempt.bundle = log.bundle(attempt.world.measurement, ts=attempt.world.ts)
    attempt.change_bundle(state=log.included(3))


def break_the_states_path(attempt: Attempt) -> None:
    state = attempt.bundle.state
    attempt.change_bundle(state=replace(state, path=(*state.path[:-1], bytes(32))))


def do_without_the_auditor(attempt: Attempt) -> None:
    attempt.policy["tlog_policy"] = attempt.policy["tlog_policy"].replace("quorum both", f"quorum {WITNESS}")
    attempt.change_bundle(checkpoint=signed_note(attempt.world.log.checkpoint, attempt.world.ts, [WITNESS]))


def leave_the_log_without_a_map(attempt: Attempt) -> None:
    log = attempt.world.log
    log.entries[-1] = log.entries[-1].replace(b'"F1"', b'"F2"')
    attempt.bundle = log.bundle(attempt.world.measurement, ts=attempt.world.ts)


def freeze_the_log(attempt: Attempt) -> None:
    attempt.world.log.order(Order(attempt.world.log.origin, attempt.world.now, FREEZE))
    attempt.bundle = attempt.world.shown()


# 7. release inclusion


def shown(attempt: Attempt) -> Included:
    assert isinstance(attempt.bundle, Bundle)
    assert attempt.bundle.release is not None
    return attempt.bundle.release


def break_the_releases_path(attempt: Attempt) -> None:
    release = shown(attempt)
    attempt.change_bundle(release=replace(release, path=(bytes(32), *release.path[1:])))


def show_a_release_that_is_not_logged(attempt: Attempt) -> None:
    other = attempt.world.log.maker.release(rows=[authority.row(SEED)])
    attempt.change_bundle(release=replace(shown(attempt), entry=other))


def show_something_else_as_release(attempt: Attempt) -> None:
    attempt.change_bundle(release=attempt.world.log.included(3))


def show_a_service_that_the_policy_does_not_name(attempt: Attempt) -> None:
    attempt.policy["services"] = {"search": attempt.policy["services"]["chat"]}


def show_a_release_for_another_log(attempt: Attempt) -> None:
    maker = authority.Authority("other.example.org/simulation")
    logged(attempt, maker.release(rows=[authority.row(SEED)]), start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


# 8. release authority


def pin(attempt: Attempt, *names: str, threshold: int = 1) -> None:
    attempt.policy["services"]["chat"]["owner"] = {"keys": authority.keys(*names), "threshold": threshold}


def pin_other_owners(attempt: Attempt) -> None:
    pin(attempt, "stranger1")


def pin_another_threshold(attempt: Attempt) -> None:
    pin(attempt, "owner1", "owner2", "owner3", threshold=3)


def begin_at_another_genesis(attempt: Attempt) -> None:
    attempt.policy["genesis"] = "ab" * 32


def chain(attempt: Attempt, *indices: int) -> None:
    attempt.change_bundle(authority=tuple(map(attempt.world.log.included, indices)))


def break_the_genesis_path(attempt: Attempt) -> None:
    # A log that does not begin with the genesis can still show it.
    assert isinstance(attempt.bundle, Bundle)
    first, *rest = attempt.bundle.authority
    attempt.change_bundle(authority=(replace(first, path=(bytes(32), *first.path[1:])), *rest))


def leave_out_the_delegation(attempt: Attempt) -> None:
    chain(attempt, 0, 1)


def leave_out_the_allocation(attempt: Attempt) -> None:
    chain(attempt, 0, 2)


def turn_the_chain_around(attempt: Attempt) -> None:
    chain(attempt, 0, 2, 1)


def begin_somewhere_else(attempt: Attempt) -> None:
    log = attempt.world.log
    log.entries[3] = log.entries[0]
    attempt.bundle = log.bundle(attempt.world.measurement, ts=attempt.world.ts)
    chain(attempt, 3, 1, 2)


def leave_out_a_compromise(attempt: Attempt) -> None:
    # The delegation behind it is signed by the same owners; only its number shows that one is missing.
    maker = attempt.world.log.maker
    lost = [{"key": authority.keyid("builder1"), "from_index": 4}]
    attempt.world.log.append(maker.delegation(builders=("builder2",), compromised=lost))
    attempt.world.log.append(maker.delegation(builders=("builder2",)))
    attempt.renew()
    *rest, _, last = attempt.bundle.authority  # type: ignore[union-attr]  # a bundle of a release
    attempt.change_bundle(authority=(*rest, last))


def leave_out_the_genesis(attempt: Attempt) -> None:
    chain(attempt, 1, 2)


def slip_in_something_else(attempt: Attempt) -> None:
    chain(attempt, 0, 1, 2, 3)


def slip_in_the_release(attempt: Attempt) -> None:
    chain(attempt, 0, 1, 2, 4)


def break_a_delegations_path(attempt: Attempt) -> None:
    assert isinstance(attempt.bundle, Bundle)
    *rest, last = attempt.bundle.authority
    attempt.change_bundle(authority=(*rest, replace(last, path=(bytes(32), *last.path[1:]))))


def logged(attempt: Attempt, *entries: bytes, start: int) -> None:
    """Put entries into the log without asking F1, as a dishonest log would."""
    log = attempt.world.log
    log.entries[start : start + len(entries)] = list(entries)
    attempt.bundle = log.bundle(attempt.world.measurement, ts=attempt.world.ts)


def appoint_builders_without_the_owners(attempt: Attempt) -> None:
    maker = authority.Authority(attempt.world.log.origin)
    maker.genesis()
    allocation = maker.allocation()
    logged(attempt, allocation, maker.delegation(signers=["owner1"]), start=1)


def appoint_builders_elsewhere(attempt: Attempt, origin: str, service: str) -> None:
    """Put a whole chain of the same owners into the log, and a release by the builder whom it names."""
    elsewhere = authority.Authority(origin)
    allocation = elsewhere.allocation(service)
    logged(attempt, allocation, elsewhere.delegation(service, builders=("builder2",)), start=1)
    maker = authority.Authority(attempt.world.log.origin)
    logged(attempt, maker.release(rows=[authority.row(SEED)], signers=["builder2"]), start=4)
    chain(attempt, 0, 1, 2)
    attempt.change_bundle(release=attempt.world.log.included(4))


def appoint_builders_in_another_log(attempt: Attempt) -> None:
    appoint_builders_elsewhere(attempt, "other.example.org/simulation", SERVICE)


def appoint_builders_of_another_service(attempt: Attempt) -> None:
    appoint_builders_elsewhere(attempt, attempt.world.log.origin, "search")


def log_the_chain_backwards(attempt: Attempt) -> None:
    log = attempt.world.log
    logged(attempt, log.entries[2], log.entries[1], start=1)
    chain(attempt, 0, 2, 1)


def sign_as_somebody_else(attempt: Attempt) -> None:
    maker = authority.Authority(attempt.world.log.origin)
    release = maker.release(rows=[authority.row(SEED)], signers=["owner1"])
    logged(attempt, release, start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


def sign_badly(attempt: Attempt) -> None:
    entry = attempt.world.release
    envelope = Envelope.parse(entry)
    bad = replace(envelope.signatures[0], sig=envelope.signatures[0].sig[:-1] + b"\x00")
    logged(attempt, replace(envelope, signatures=(bad,)).encode(), start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


def lose_the_builders_key(attempt: Attempt) -> None:
    world = attempt.world
    lost = [{"key": authority.keyid("builder1"), "from_index": 4}]
    world.log.append(world.log.maker.delegation(builders=("builder2",), compromised=lost))
    attempt.renew()


# 9. records


def records(attempt: Attempt) -> tuple[Proven, ...]:
    assert isinstance(attempt.bundle, Bundle)
    return attempt.bundle.records


def break_a_trie_proof(attempt: Attempt) -> None:
    first, *rest = records(attempt)
    attempt.change_bundle(records=(replace(first, proof=flip(first.proof)), *rest))


def change_a_record(attempt: Attempt) -> None:
    first, *rest = records(attempt)
    attempt.change_bundle(
        records=(replace(first, record=first.record.replace(b'"first":4', b'"first":3')), *rest)
    )


def leave_out_the_status(attempt: Attempt) -> None:
    attempt.change_bundle(records=records(attempt)[1:])


def leave_out_the_service(attempt: Attempt) -> None:
    attempt.change_bundle(records=(records(attempt)[0], records(attempt)[2]))


def hide_the_newest_delegation(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.delegation(builders=("builder2",)))
    attempt.renew()
    chain(attempt, 0, 1, 2)


# 10. status


def revoke(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.revocation(attempt.world.release))
    attempt.renew()


def suspend(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.revocation([SEED], suspend=timedelta(hours=1)))
    attempt.renew()


def end(attempt: Attempt) -> None:
    world = attempt.world
    ends = time_text(world.now + timedelta(seconds=60))
    release = world.log.maker.release(rows=[authority.row(SEED)], not_after=ends)
    world.log.append(release, world.log.maker.rebuild(release, {SEED: True}))
    attempt.renew()
    attempt.now += timedelta(seconds=60)


def show_an_older_release(attempt: Attempt) -> None:
    old = shown(attempt)
    release = attempt.world.log.maker.release(rows=[authority.row(SEED)])
    attempt.world.log.append(release, attempt.world.log.maker.rebuild(release, {SEED: True}))
    attempt.renew()
    attempt.change_bundle(release=attempt.world.log.included(old.index))


# 11. row


def measure_something_free(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(found=registers(rtmr0=b"\x01" * 48))


def extend_rtmr3(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(found=registers(rtmr3=b"\x01" * 48))


def configure_otherwise(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(found=registers(mr_config_id=b"\x01" * 48))


def serve_another_service(attempt: Attempt) -> None:
    keys = keyset(attempt.world.channel.public, service="search")
    attempt.document = attempt.world.document(keys=keys)


# 12. tcb floor


def lose_the_floor(attempt: Attempt) -> None:
    attempt.change_bundle(records=records(attempt)[:2])


def let_the_floor_end(attempt: Attempt) -> None:
    world = attempt.world
    ends = time_text(world.now + timedelta(seconds=60))
    world.log.append(world.log.maker.floor(product=PRODUCT, floor=FLOOR, expires=ends))
    attempt.renew()
    attempt.now += timedelta(seconds=60)


def raise_the_floor(attempt: Attempt) -> None:
    attempt.world.log.append(
        attempt.world.log.maker.floor(product=PRODUCT, floor={**FLOOR, "evaluation_number": 21})
    )
    attempt.renew()


def demand_more_than_the_log(attempt: Attempt) -> None:
    minimum = {"tee_tcb_svn": "07" + CURRENT.tee_tcb_svn.hex()[2:], "sgx_tcb_svn": CURRENT.sgx_tcb_svn.hex()}
    floor = {**FLOOR, "minimum": {**minimum, "pce_svn": CURRENT.pce_svn}}
    attempt.policy["platforms"]["sim-tdx"]["floors"] = {PRODUCT: floor}


def name_other_products(attempt: Attempt) -> None:
    attempt.policy["platforms"]["sim-tdx"]["floors"] = {"50806f000000": dict(FLOOR)}


# 13. rebuilders


def demand_two_rebuilders(attempt: Attempt) -> None:
    attempt.policy["rebuilders"]["k"] = 2


def demand_other_rebuilders(attempt: Attempt) -> None:
    attempt.policy["rebuilders"] = {"keys": authority.keys("stranger1"), "k": 1}


def build_something_else(attempt: Attempt) -> None:
    world = attempt.world
    world.log.append(world.log.maker.rebuild(world.release, {SEED: False}, signers=["rebuilder2"]))
    attempt.renew()


CASES: dict[str, list[tuple[Change, type[Judged]]]] = {
    "evidence": [
        (break_quote, Rejected),
        (change_registers, Rejected),
        (admit_another_root, Rejected),
        (expire_collateral, Rejected),
    ],
    "binding": [
        (swap_keyset, Rejected),
        (swap_binding, Rejected),
        (swap_binding_and_keyset, Rejected),
        (watch_another_log, Rejected),
        (show_unbound_devices, Rejected),
        (hide_bound_devices, Rejected),
        (outlive_the_keyset, Refused),
    ],
    "nonce": [
        (answer_another_nonce, Rejected),
        (answer_no_nonce, Rejected),
        (claim_another_place, Rejected),
    ],
    "checkpoint": [
        (drop_a_log_signature, Refused),
        (drop_a_witness, Refused),
        (change_the_checkpoint, Rejected),
        (come_from_the_future, Refused),
    ],
    "rollback": [
        (remember_more, Refused),
        (remember_another_tree, Refused),
        (demand_more_entries, Refused),
        (demand_a_later_time, Refused),
    ],
    "age": [(wait_too_long, Refused), (know_a_later_time, Refused), (ask_no_witness, Refused)],
    "state": [
        (show_an_older_state, Rejected),
        (show_a_state_that_stands_elsewhere, Rejected),
        (break_the_states_path, Rejected),
        (do_without_the_auditor, Refused),
        (leave_the_log_without_a_map, Refused),
        (freeze_the_log, Refused),
    ],
    "release inclusion": [
        (break_the_releases_path, Rejected),
        (show_a_release_that_is_not_logged, Rejected),
        (show_something_else_as_release, Rejected),
        (show_a_service_that_the_policy_does_not_name, Refused),
        (show_a_release_for_another_log, Refused),
    ],
    "release authority": [
        (pin_other_owners, Rejected),
        (pin_another_threshold, Rejected),
        (begin_at_another_genesis, Rejected),
        (break_the_genesis_path, Rejected),
        (begin_somewhere_else, Rejected),
        (leave_out_the_delegation, Rejected),
        (leave_out_the_allocation, Rejected),
        (leave_out_a_compromise, Rejected),
        (turn_the_chain_around, Rejected),
        (leave_out_the_genesis, Rejected),
        (slip_in_something_else, Rejected),
        (slip_in_the_release, Rejected),
        (break_a_delegations_path, Rejected),
        (appoint_builders_without_the_owners, Rejected),
        (appoint_builders_in_another_log, Rejected),
        (appoint_builders_of_another_service, Rejected),
        (log_the_chain_backwards, Rejected),
        (sign_as_somebody_else, Rejected),
        (sign_badly, Rejected),
        (lose_the_builders_key, Rejected),
    ],
    "records": [
        (break_a_trie_proof, Rejected),
        (change_a_record, Rejected),
        (leave_out_the_status, Rejected),
        (leave_out_the_service, Rejected),
        (hide_the_newest_delegation, Rejected),
    ],
    "status": [(revoke, Refused), (suspend, Refused), (end, Refused), (show_an_older_release, Rejected)],
    "row": [
        (measure_something_free, Rejected),
        (extend_rtmr3, Rejected),
        (configure_otherwise, Rejected),
        (serve_another_service, Rejected),
    ],
    "tcb floor": [
        (lose_the_floor, Refused),
        (let_the_floor_end, Refused),
        (raise_the_floor, Refused),
        (demand_more_than_the_log, Refused),
        (name_other_products, Refused),
    ],
    "rebuilders": [
        (demand_two_rebuilders, Refused),
        (demand_other_rebuilders, Refused),
        (build_something_else, Refused),
    ],
}


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


def test_devices_that_the_row_demands_and_nobody_can_verify_are_unsupported(
    vendor: tuple[PKI, Platform],
) -> None:
    devices = [{"architecture": "gh100", "count": 8, "drivers": ["570"], "vbios": ["96"]}]
    attempt = Attempt.of(World(*vendor).publish(devices=devices))
    with pytest.raises(Unsupported, match="devices"):
        attempt.judge()


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
