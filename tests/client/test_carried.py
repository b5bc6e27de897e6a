"""What travels between the processes of an audit is all that F1 asks for."""

import base64
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quotary.client.carried import Carried
from quotary.statements.f1 import F1
from quotary.statements.opened import Opened, open_entry
from quotary.statements.release import Release
from quotary.statements.state_entry import is_reserved, state_of

CASES = [
    pytest.param(case, id=f"{path.stem}: {case['about']}")
    for path in sorted((Path(__file__).parents[1] / "vectors" / "f1").glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
]


@pytest.mark.parametrize("case", CASES)
def test_f1_decides_about_what_travelled_as_about_the_entries(case: dict[str, Any]) -> None:
    log = [base64.b64decode(entry) for entry in case["log"]]
    opened = [None if is_reserved(entry) else open_entry(entry) for entry in log]
    carried = dict(pickle.loads(pickle.dumps(Carried.of(opened))).opened())
    assert list(carried) == [offset for offset, item in enumerate(opened) if item is not None]
    for offset, item in carried.items():
        assert item == claimed(opened[offset])
    here, there, first = F1(case["origin"]), F1(case["origin"]), 0
    for index, entry in enumerate(log):
        state = state_of(entry)
        if state is not None:
            interval = [(number, log[number]) for number in range(first, index)]
            known = [(number, carried[number]) for number, _ in interval if number in carried]
            assert there.decide(known, state.ts) == here.close(interval, state.ts)
            first = index + 1


def claimed(opened: Opened | None) -> Opened | None:
    if opened is None or opened.statement is None or not isinstance(opened.statement.predicate, Release):
        return opened
    return replace(opened, statement=replace(opened.statement, predicate=opened.statement.predicate.claim))
