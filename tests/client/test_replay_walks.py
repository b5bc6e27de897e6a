"""F1's state in the audit store over random logs; a file of its own, as it needs node."""

import json
import sqlite3
import subprocess

import pytest

from tests.client.test_replay_state import compare, database
from tests.conftest import ROOT
from tests.fakes.node import LEAST_NODE, node_version
from tests.registry.test_state import LENGTH, WALKS

__all__ = ["database"]


@pytest.mark.parametrize("seed", range(WALKS))
def test_both_states_give_the_same_changes_and_answers_on_random_logs(
    seed: int, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    if node_version() < LEAST_NODE:
        pytest.skip(f"node >= {LEAST_NODE} is not on this machine")
    monkeypatch.setattr("quotary.client.replay_state._KEPT", 3)
    program = ["node", "tests/web/walks.mjs", str(seed), "1", str(LENGTH)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, check=True, timeout=60)
    (case,) = json.loads(done.stdout)["cases"]
    compare(case, database)
