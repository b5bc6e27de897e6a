"""Orders against their vectors, and each rule of docs/formats/orders.md broken on its own."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from quotary.errors import Malformed, Rejected
from quotary.statements.f1 import F1
from quotary.statements.order import Freeze, KeyRotation, Order, check_interval, order_of
from quotary.statements.state_entry import StateEntry, is_reserved, state_of
from tests.fakes.authority import NOW, ORIGIN, TS, Authority, key
from tests.vectors import make_orders
from tests.vectors.make_orders import CLOSED, FREEZE, ROTATION, order

FOLDER = Path(make_orders.FOLDER)
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['about']}")
    for path in sorted(FOLDER.glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
]


def audit(origin: str, log: list[bytes]) -> int | None:
    """Give the index of the state entry at which the audit ends, or None."""
    f1, before = F1(origin), None
    waiting: list[tuple[int, bytes]] = []
    for index, entry in enumerate(log):
        state = state_of(entry)
        if state is None:
            waiting.append((index, entry))
            continue
        try:
            state.check_follows(before)
            check_interval(origin, waiting, state, f1.log_delegation)
        except (Malformed, Rejected):
            return index
        f1.close(waiting, state.ts)
        before, waiting = state, []
    return None


@pytest.mark.parametrize("case", CASES)
def test_orders_hold_and_break_where_the_vectors_say(case: dict[str, Any]) -> None:
    log = [base64.b64decode(entry) for entry in case["log"]]
    assert audit(case["origin"], log) == case.get("breaks_at")


def test_the_script_makes_these_very_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_orders, "FOLDER", tmp_path)
    make_orders.main()
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize("content", [ROTATION, FREEZE, CLOSED], ids=lambda content: type(content).__name__)
def test_an_order_reads_back_and_is_reserved(content: Any) -> None:
    made = order(content)
    entry = made.encode()
    assert Order.parse(entry) == made == order_of(entry)
    assert is_reserved(entry)
    assert state_of(entry) is None


def test_an_order_goes_from_root_to_root_and_is_one_only_with_a_signature() -> None:
    draft = Order(ORIGIN, NOW, FREEZE)
    with pytest.raises(Malformed, match="has 0 items"):
        Order.parse(draft.encode())
    first = Order.parse_draft(draft.encode()).signed_by([key("root2")])
    assert Order.parse_draft(first.encode()).signed_by([key("root1")]) == order(FREEZE)


def test_statements_state_entries_and_other_records_are_no_orders() -> None:
    state = StateEntry(3, {"F1": bytes(32)}, TS, None, "freeze")
    for entry in (Authority().genesis(), state.encode(), b'{"type":"something-new"}', b'{"type":{}}', b""):
        assert order_of(entry) is None
    with pytest.raises(Malformed):
        order_of(b'{"type":"freeze"}')


def test_the_first_interval_has_no_roots_that_could_order() -> None:
    state = StateEntry(1, {"F1": bytes(32)}, TS, None, "freeze")
    with pytest.raises(Rejected, match="a log without roots"):
        check_interval(ORIGIN, [(0, order(FREEZE).encode())], state, None)


def test_a_signature_covers_the_kind_of_the_order() -> None:
    freeze, rotation = order(Freeze("x")), order(KeyRotation(ROTATION.add, ROTATION.remove, NOW))
    assert freeze.message.startswith(b'quotary-order/v1\n{"issued":')
    assert freeze.signatures != rotation.signatures
