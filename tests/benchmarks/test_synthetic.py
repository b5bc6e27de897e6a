"""The synthetic log that the benchmarks measure with is a genuine one."""

import subprocess
import sys
from pathlib import Path

from quotary.statements.f1 import F1
from tests.fakes.authority import ORIGIN, TS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "synthetic.py"
COUNT = 300


def made(count: int) -> list[bytes]:
    found = subprocess.run([sys.executable, SCRIPT, str(count)], capture_output=True, check=True, timeout=60)
    return found.stdout.splitlines()


def test_every_synthetic_entry_is_another_one_and_has_effect() -> None:
    entries = made(COUNT)
    assert len(set(entries)) == COUNT
    outcomes = F1(ORIGIN).close(enumerate(entries), TS).outcomes
    assert {outcome.code for outcome in outcomes} == {"effective"}


def test_a_shorter_log_is_the_beginning_of_a_longer_one() -> None:
    assert made(COUNT)[:200] == made(200)
