"""web/static/verify.js about a log that has ended: never shown as one that goes on, and what was not seen as not checked."""

import pytest

from quotary.canonical import b64
from tests.fakes.log import FakeLog, tlog_policy
from tests.fakes.node import node_says
from tests.vectors.make_orders import FREEZE, order

GOES_ON = "the log goes on"


def log_of(*, frozen: bool) -> FakeLog:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation())
    log.close()
    if frozen:
        log.order(order(FREEZE))
    return log


def said(call: str, *given: object) -> object:
    (found,) = node_says("tests/web/verify.mjs", [{"call": call, "arguments": given}])
    return found


def raw(data: bytes) -> dict[str, str]:
    return {"bytes": b64(data)}


def last_of(log: FakeLog, entry: bytes | None = None, index: int | None = None) -> dict[str, object]:
    at = len(log.entries) - 1 if index is None else index
    return {"entry": raw(log.entries[at] if entry is None else entry), "proof": log.proof(at).decode()}


def outcome(log: FakeLog, last: dict[str, object] | None) -> tuple[str, str]:
    """What is said of entry 0 of a log whose last entry is at hand, or is not."""
    found = said("checkEntry", raw(log.entries[0]), log.proof(0).decode(), tlog_policy(), last)
    assert isinstance(found, list)
    (row,) = [row for row in found if row["name"] == GOES_ON]
    assert "failed" not in {each["outcome"] for each in found if each["name"] != GOES_ON}
    return row["outcome"], row["detail"]


def test_a_log_that_goes_on_is_one_that_goes_on() -> None:
    log = log_of(frozen=False)
    assert outcome(log, last_of(log)) == ("passed", "its last entry, 2, names no end")


def test_a_log_that_has_ended_is_refused_and_says_by_what() -> None:
    log = log_of(frozen=True)
    assert outcome(log, last_of(log))[0] == "refused"
    assert "ended with the freeze" in outcome(log, last_of(log))[1]


def test_a_last_entry_that_is_not_at_hand_is_not_checked() -> None:
    log, other = log_of(frozen=False), log_of(frozen=True)
    for last in (None, last_of(other)):
        assert outcome(log, last)[0] == "not checked"


def test_a_last_entry_that_is_not_the_last_or_not_proven_is_a_contradiction() -> None:
    log = log_of(frozen=True)
    twice = log.entries[-1].replace(b'{"end"', b'{"end":"x","end"')
    for last in (last_of(log, index=2), last_of(log, log.entries[2]), last_of(log, twice)):
        assert outcome(log, last) == ("failed", "the last entry is not proven")


@pytest.mark.parametrize(
    "entry",
    [
        b"{}",
        b"\xff",
        b"null",
        b'{"type":"freeze"}',
        b'{"payload":1,"type":"state"}',
        b'{"type":"state", "size":1}',
    ],
)
def test_a_last_entry_that_is_no_state_entry_says_nothing_good(entry: bytes) -> None:
    log = log_of(frozen=False)
    log.entries.append(entry)
    assert outcome(log, last_of(log)) == ("failed", "the last entry is no state entry")


def test_a_pasted_state_entry_that_ends_its_log_is_refused() -> None:
    for frozen, wanted in ((True, "refused"), (False, "passed")):
        log = log_of(frozen=frozen)
        at = len(log.entries) - 1
        found = said("checkPasted", log.proof(at).decode(), raw(log.entries[at]), ed25519_policy())
        assert isinstance(found, dict)
        assert found["verdict"] == wanted, found
        assert [row["outcome"] for row in found["results"] if row["name"] == GOES_ON] == [wanted]


def ed25519_policy() -> str:
    """Without ML-DSA, which not every node has."""
    lines = tlog_policy().splitlines(keepends=True)
    return "".join([lines[0], *lines[2:]])
