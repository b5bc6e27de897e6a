"""What a successor takes over: services, revocations and floors, so that nothing leaves revoked by moving."""

from datetime import timedelta

import pytest

from quotary.canonical import time_text
from quotary.errors import Malformed, Rejected
from quotary.statements.delegation import Delegation, Predecessor
from quotary.statements.envelope import Envelope, sign
from quotary.statements.f1 import F1
from quotary.statements.keys import key_measurement, key_tcb
from quotary.statements.records import MeasurementRecord, ServiceRecord, parse_record
from quotary.statements.schema import parse_statement
from quotary.statements.succession import Heritage, carried, check_carried, payloads
from tests.fakes.authority import (
    DAY,
    FLOOR,
    NOW,
    ORIGIN,
    SERVICE,
    TS,
    Authority,
    key,
    keys,
    measurement,
    role,
)

NEW = "log2.example.org/simulation"
PREDECESSOR = {"origin": ORIGIN, "size": 9, "root": "01" * 32, "map": "02" * 32}


def heritage(*more: bytes, ts: int = TS) -> Heritage:
    """The end of a log with one service, one floor, and ``more``."""
    by, f1 = Authority(), F1(ORIGIN)
    log = [by.genesis(), by.allocation(), by.delegation(), by.floor(), by.release("a", "b"), *more]
    closed = f1.close(list(enumerate(log)), ts)
    assert all(outcome.effect for outcome in closed.outcomes), closed.outcomes
    records = tuple(parse_record(record) for record in closed.changes.values())
    found = {}
    for record in records:
        if isinstance(record, ServiceRecord):
            predicate = parse_statement(Envelope.parse(log[record.index]).payload).predicate
            assert isinstance(predicate, Delegation)
            found[record.service] = predicate
    return Heritage(records, found, ts)


def maker() -> Authority:
    """Somebody who goes on where ``heritage`` begins ``more``."""
    by = Authority()
    by.genesis(), by.allocation(), by.delegation(), by.floor(), by.release("a", "b")
    return by


def successor(found: Heritage) -> tuple[F1, list[bytes], dict[bytes, bytes]]:
    """The successor after its first interval: its F1, the payloads that had effect, its map."""
    by, f1 = Authority(NEW), F1(NEW)
    made = payloads(found, NEW, NOW)
    entries = [by.genesis(), *(sign(payload, [key("root1"), key("root2")]) for payload in made)]
    closed = f1.close(list(enumerate(entries)), TS)
    assert all(outcome.effect for outcome in closed.outcomes), closed.outcomes
    return f1, list(made), dict(closed.changes)


def test_owners_revocations_and_floors_go_over() -> None:
    by = maker()
    found = heritage(by.revocation(["a"], signers=["builder1"]), by.revocation(["z"], "log", ["security1"]))
    f1, made, records = successor(found)
    check_carried(found, made)
    assert [(item.kind, item.service) for item in carried(found)] == [
        ("delegation", SERVICE),
        ("revocation", SERVICE),
        ("revocation", "log"),
        ("tcb-floor", "log"),
    ]
    record = parse_record(records[key_measurement(SERVICE, measurement("a"))])
    assert isinstance(record, MeasurementRecord)
    assert (record.status, record.reason) == ("revoked", "CVE-2026-0001")
    assert key_tcb("sim-tdx", "50806f000000") in records
    by = Authority(NEW)
    by.allocation()
    (owned,) = f1.close([(9, by.delegation(previous=_allocated(made)))], TS).outcomes
    assert owned.effect
    released = f1.close([(10, by.release("a", "z", "b"))], TS).changes
    status = {
        seed: parse_record(released[key_measurement(SERVICE, measurement(seed))]).status  # type: ignore[union-attr]
        for seed in ("a", "z", "b")
    }
    assert status == {"a": "revoked", "z": "revoked", "b": "active"}


def _allocated(made: list[bytes]) -> str:
    from quotary.statements.envelope import statement_id

    return statement_id(made[0])


def test_whoever_leaves_a_revocation_out_is_found() -> None:
    found = heritage(maker().revocation(["a"], signers=["builder1"]))
    _, made, _ = successor(found)
    for left_out in range(len(made)):
        with pytest.raises(Rejected, match="succession: found a first interval without it"):
            check_carried(found, made[:left_out] + made[left_out + 1 :])


def test_a_service_whose_delegation_has_ended_is_free_and_its_revocations_are_the_logs() -> None:
    by = maker()
    short = by.delegation(expires=time_text(NOW + timedelta(hours=1)))
    found = heritage(by.revocation(["a"], signers=["builder1"]), short)
    late = Heritage(found.records, found.delegations, TS + 7200)
    assert [(item.kind, item.service) for item in carried(late)] == [
        ("revocation", "log"),
        ("tcb-floor", "log"),
    ]
    check_carried(late, successor(late)[1])


def test_one_id_that_two_ended_services_revoked_is_revoked_once() -> None:
    by = maker()
    ended = {"expires": time_text(NOW + timedelta(hours=1))}
    owners = {"keys": keys("owner9"), "roles": {"owner": role(["owner9"], 1)}}
    found = heritage(
        by.revocation(["a"], signers=["builder1"], reason="b"),
        by.delegation(**ended),  # type: ignore[arg-type]
        by.allocation("other", **owners, **ended),
        by.revocation(["a"], service="other", signers=["root1", "root2"], reason="a"),
    )
    late = Heritage(found.records, found.delegations, TS + 7200)
    assert [item.members.get("reason") for item in carried(late)] == ["a", None]
    check_carried(late, successor(late)[1])


def test_a_lowered_floor_that_is_in_force_goes_over_and_one_that_has_ended_does_not() -> None:
    lower = {**FLOOR, "evaluation_number": 16}
    found = heritage(maker().floor(["root1", "root2"], floor=lower))
    for ts, wanted in ((TS, 17), (TS + 72 * 3600, 16)):
        now = Heritage(found.records, found.delegations, ts)
        floor = carried(now)[-1].members["floor"]
        assert isinstance(floor, dict)
        assert floor["evaluation_number"] == wanted
    ended = Heritage(found.records, found.delegations, TS + int((31 * DAY).total_seconds()))
    assert {item.kind for item in carried(ended)} == {"delegation"}


def test_only_a_genesis_names_a_predecessor() -> None:
    by = Authority(NEW)
    predicate = parse_statement(Envelope.parse(by.genesis(predecessor=PREDECESSOR)).payload).predicate
    assert isinstance(predicate, Delegation)
    assert predicate.predecessor == Predecessor(ORIGIN, 9, b"\x01" * 32, b"\x02" * 32)
    (outcome,) = F1(NEW).close([(0, by.genesis(predecessor=PREDECESSOR))], TS).outcomes
    assert outcome.effect
    for wrong in (
        lambda: by.allocation(predecessor=PREDECESSOR),
        lambda: by.delegation(sequence=2, predecessor=PREDECESSOR),
    ):
        with pytest.raises(Malformed, match="only a genesis"):
            wrong()
    for change in ({"size": 0}, {"root": "01"}, {"map": "02"}, {"origin": NEW}, {"more": 1}):
        with pytest.raises(Malformed):
            by.genesis(predecessor={**PREDECESSOR, **change})
