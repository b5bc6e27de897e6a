"""Changes that each spoil one thing about a log: its checkpoint, its state, its records and floors.

``CASES`` names for each check of the verification order the changes that it alone refuses, and how.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from quotary.canonical import time_text
from quotary.client.trust import Accepted
from quotary.errors import Judged, Refused, Rejected
from quotary.statements.bundle import Bundle, Proven
from quotary.statements.order import Order
from simulator.tcb import CURRENT
from tests.client.spoiled_machine import flip
from tests.client.spoiled_release import chain
from tests.fakes.attempt import Attempt
from tests.fakes.log import AUDITOR, WITNESS, signed_note
from tests.fakes.machine import FLOOR, PRODUCT
from tests.vectors.make_orders import FREEZE

Change = Callable[[Attempt], object]


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


CASES: dict[str, list[tuple[Change, type[Judged]]]] = {
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
    "records": [
        (break_a_trie_proof, Rejected),
        (change_a_record, Rejected),
        (leave_out_the_status, Rejected),
        (leave_out_the_service, Rejected),
        (hide_the_newest_delegation, Rejected),
    ],
    "tcb floor": [
        (lose_the_floor, Refused),
        (let_the_floor_end, Refused),
        (raise_the_floor, Refused),
        (demand_more_than_the_log, Refused),
        (name_other_products, Refused),
    ],
}
