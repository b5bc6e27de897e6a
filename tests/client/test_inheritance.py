"""Whether a successor took over everything: a true one passes, and each way to leave something out has its finding."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from quotary.client.audit import Auditor
from quotary.client.finding import Finding
from quotary.client.inheritance import Closed, Inherited, Successor, check_succession
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files
from quotary.errors import Refused
from quotary.statements.envelope import sign
from quotary.statements.order import KeyRotation, Order, ShardClosed
from quotary.statements.succession import payloads
from quotary.tlog.note import VerifierKey
from tests.fakes.authority import NOW, ORIGIN, TS, key
from tests.fakes.files import source_of
from tests.fakes.log import FakeLog, log_keys, policy_bytes, policy_document
from tests.statements.test_succession import heritage, maker
from tests.vectors.make_orders import FREEZE, order

NEW = "log2.example.org/simulation"
KEYS = tuple(made.verifier for made in log_keys(NEW))


def old_log(end: Order | None = None) -> FakeLog:
    """The log of ``heritage`` with one revocation, closed in favour of ``NEW``."""
    log = FakeLog()
    by = log.maker
    log.append(by.genesis(), by.allocation(), by.delegation(), by.floor(), by.release("a", "b"))
    log.append(by.revocation(["a"], signers=["builder1"]))
    log.close()
    log.order(end or order(ShardClosed("retired", NEW, KEYS)))
    return log


def new_log(old: FakeLog, leave_out: int | None = None, **changes: object) -> FakeLog:
    """A successor that says everything again, or all but one statement; changes: to what its genesis names."""
    log, found = FakeLog(NEW), heritage(maker().revocation(["a"], signers=["builder1"]))
    bound = {"origin": ORIGIN, "size": len(old.entries), "root": old.checkpoint.root.hex()}
    named = {**bound, "map": old.map_root.hex(), **changes}
    log.append(log.maker.genesis(**({"predecessor": named} if changes != {"origin": None} else {})))
    for number, payload in enumerate(payloads(found, NEW, NOW)):
        if number != leave_out:
            log.append(sign(payload, [key("root1"), key("root2")]))
    log.close()
    return log


@dataclass
class Both:
    """Compares two logs, whichever a test makes; ``keys`` are those of the policy."""

    folder: Path
    number: int = 0

    def __call__(self, old: FakeLog, new: FakeLog, keys: tuple[VerifierKey, ...] = KEYS) -> Inherited:
        self.number += 1
        with (
            ReplayStore(self.folder / f"old{self.number}", ORIGIN) as before,
            ReplayStore(self.folder / f"new{self.number}", NEW) as after,
        ):
            first = Auditor(_policy(old), before, lambda done, size: None)
            second = Auditor(_policy(new), after, lambda done, size: None)
            files = Files(source_of(new))
            closed = Closed(first.audit(Files(source_of(old))), first.note, before.state())
            return check_succession(closed, Successor(second.audit(files), second.note, files, keys))


def _policy(log: FakeLog) -> Policy:
    return Policy.parse(policy_bytes(policy_document(log.origin, log.genesis)))


@pytest.fixture
def compare(tmp_path: Path) -> Both:
    return Both(tmp_path)


def finding(act: Callable[[], object]) -> Finding:
    with pytest.raises(Finding) as found:
        act()
    assert found.value.check == "succession"
    assert [exhibit.name for exhibit in found.value.exhibits][:2] == ["checkpoint", "predecessor"]
    return found.value


def test_a_successor_that_took_over_everything_passes(compare: Both) -> None:
    old = old_log()
    assert compare(old, new_log(old)) == Inherited(ORIGIN, len(old.entries), 3)


def test_each_statement_that_is_left_out_is_a_finding(compare: Both) -> None:
    old = old_log()
    wanted = ["delegation of chat", "revocation of chat", "tcb-floor of log"]
    for number, what in enumerate(wanted):
        found = finding(lambda n=number: compare(old, new_log(old, n)))  # type: ignore[misc]
        assert what in found.wanted


def test_what_is_said_after_the_first_interval_is_said_too_late(compare: Both) -> None:
    old = old_log()
    late = new_log(old, 1)
    late.append(late.maker.revocation(["a"], signers=["root1", "root2"]))
    late.close(TS + 1)
    assert "revocation of chat" in finding(lambda: compare(old, late)).wanted


def test_what_had_no_effect_was_not_said(compare: Both) -> None:
    old = old_log()
    log, found = new_log(old, 2), heritage()
    made = FakeLog(NEW)
    floor = payloads(found, NEW, NOW)[-1]
    made.append(*log.entries[:-1], sign(floor, [key("builder1")]))
    made.close()
    assert "tcb-floor" in finding(lambda: compare(old, made)).wanted


@pytest.mark.parametrize(
    "changes",
    [{"size": 3}, {"root": "01" * 32}, {"map": "02" * 32}, {"origin": "log9.example.org"}, {"origin": None}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_genesis_that_names_another_log_or_another_end_is_a_finding(
    compare: Both, changes: dict[str, object]
) -> None:
    old = old_log()
    found = finding(lambda: compare(old, new_log(old, **changes)))
    assert f"{ORIGIN} of {len(old.entries)} entries" in found.wanted
    assert found.exhibits[-1].name == "entry 0"


def test_a_log_that_the_closing_order_does_not_name_is_no_successor(compare: Both) -> None:
    origin = "log3.example.org/simulation"
    old = old_log(order(ShardClosed("retired", origin, tuple(made.verifier for made in log_keys(origin)))))
    assert finding(lambda: compare(old, new_log(old))).wanted == origin


def test_the_keys_of_the_policy_were_named_or_rotated_in(compare: Both) -> None:
    others = tuple(made.verifier for made in log_keys("log9.example.org"))
    named = tuple(VerifierKey.of(NEW, made.alg, made.public) for made in others)
    old = old_log(order(ShardClosed("retired", NEW, (KEYS[0], named[1]))))
    found = finding(lambda: compare(old, new_log(old)))
    assert KEYS[1].key_id.hex() in found.found
    new = new_log(old)
    rotation = KeyRotation((KEYS[1],), (named[1],), NOW + timedelta(days=90))
    new.order(order(rotation, origin=NEW), TS + 1)
    assert compare(old, new).statements == 3


def test_a_log_that_goes_on_or_is_frozen_leaves_nothing_to_anybody(compare: Both) -> None:
    for end, said in ((None, "a log that goes on"), (order(FREEZE), "frozen")):
        old = old_log(end) if end else FakeLog()
        if end is None:
            old.append(old.maker.genesis())
            old.close()
        with pytest.raises(Refused, match=said):
            compare(old, new_log(old))
