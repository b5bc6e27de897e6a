"""The verification order: what holds is listed, and each step refuses alone, for its own reason and under its name."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from quotary.attestation.document import NonceProof
from quotary.client.trust import Accepted
from quotary.client.verdict import NAMES
from quotary.errors import Judged, Refused, Rejected
from quotary.statements.bundle import Bundle, Included, Proven
from simulator.tcb import CURRENT
from tests.fakes import authority
from tests.fakes.attempt import Attempt
from tests.fakes.authority import SERVICE
from tests.fakes.log import AUDITOR, WITNESS, signed_note
from tests.fakes.machine import FLOOR, PRODUCT, SEED, World, keyset, registers

Change = Callable[[Attempt], object]


def test_a_machine_that_runs_a_released_image_is_accepted(world: World) -> None:
    attempt = Attempt.of(world)
    verdict = attempt.judge()
    assert verdict.measurement_id == world.measurement
    assert verdict.service == SERVICE
    assert verdict.release == authority.statement_id_of(world.release)
    assert {check.name for check in verdict.checks if ":" not in check.name} == NAMES
    assert {check.outcome for check in verdict.checks} == {"ok"}
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
    attempt.policy["minimum"]["time"] = authority.time_text(attempt.world.now + timedelta(seconds=1))


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


def leave_out_the_delegation(attempt: Attempt) -> None:
    chain(attempt, 0, 1)


def leave_out_the_allocation(attempt: Attempt) -> None:
    chain(attempt, 0, 2)


def turn_the_chain_around(attempt: Attempt) -> None:
    chain(attempt, 0, 2, 1)


def leave_out_the_genesis(attempt: Attempt) -> None:
    chain(attempt, 1, 2)


def slip_in_something_else(attempt: Attempt) -> None:
    chain(attempt, 0, 1, 2, 3)


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


def sign_as_somebody_else(attempt: Attempt) -> None:
    maker = authority.Authority(attempt.world.log.origin)
    release = maker.release(rows=[authority.row(SEED)], signers=["owner1"])
    logged(attempt, release, start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


def sign_badly(attempt: Attempt) -> None:
    entry = attempt.world.release
    envelope = authority.Envelope.parse(entry)
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
    ends = authority.time_text(world.now + timedelta(seconds=60))
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
    ends = authority.time_text(world.now + timedelta(seconds=60))
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
        (break_the_states_path, Rejected),
        (do_without_the_auditor, Refused),
        (leave_the_log_without_a_map, Refused),
    ],
    "release inclusion": [
        (break_the_releases_path, Rejected),
        (show_a_release_that_is_not_logged, Rejected),
        (show_something_else_as_release, Rejected),
        (show_a_service_that_the_policy_does_not_name, Refused),
    ],
    "release authority": [
        (pin_other_owners, Rejected),
        (pin_another_threshold, Rejected),
        (begin_at_another_genesis, Rejected),
        (leave_out_the_delegation, Rejected),
        (leave_out_the_allocation, Rejected),
        (turn_the_chain_around, Rejected),
        (leave_out_the_genesis, Rejected),
        (slip_in_something_else, Rejected),
        (break_a_delegations_path, Rejected),
        (appoint_builders_without_the_owners, Rejected),
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
