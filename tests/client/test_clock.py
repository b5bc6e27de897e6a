"""A verifier's time never runs backwards."""

from datetime import UTC, datetime
from typing import Any

import pytest

from quotary.client import clock
from quotary.client.clock import FixedClock, SystemClock


def test_a_clock_set_back_is_held_at_the_newest_time_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([datetime(2026, 11, 21, 4, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)])

    class SteppedBack(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Any:
            return next(times)

    monkeypatch.setattr(clock, "datetime", SteppedBack)
    found = SystemClock()
    assert found.now() == found.now() == datetime(2026, 11, 21, 4, tzinfo=UTC)


def test_elapsed_time_grows() -> None:
    found = SystemClock()
    assert found.elapsed() <= found.elapsed()


def test_a_fixed_clock_does_not_pass() -> None:
    at = datetime(2026, 11, 21, 4, tzinfo=UTC)
    assert FixedClock(at).now() == at
    assert FixedClock(at).elapsed() == 0.0
