"""The machine's clock, believed while the witnesses do not contradict it.

Log time never decreases, so a clock that once ran days ahead would stop the log for days. Each round of
cosignatures says what time it is elsewhere; from then on the kernel's clock that nobody sets counts the
seconds.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from registry.errors import ClockRefused

MOST_OFF_SECONDS = 60


def boot_seconds() -> float:
    """Seconds since this machine started, with those that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WitnessedClock:
    """Gives the machine's time, or raises ``ClockRefused`` where it is more than 60 s off the witnesses'."""

    def __init__(self, now: Callable[[], datetime], elapsed: Callable[[], float] = boot_seconds) -> None:
        self._now = now
        self._elapsed = elapsed
        self._offset: float | None = None

    def __call__(self) -> datetime:
        found = self._now()
        if self._offset is not None:
            _check(found.timestamp() - self._elapsed() - self._offset)
        return found

    def unchecked(self) -> datetime:
        """Give the machine's time as it is."""
        return self._now()

    def hear(self, times: Sequence[int]) -> int:
        """Take the witnesses' times of just now (POSIX seconds), and give ours.

        Raises ``ClockRefused`` where most of them are more than 60 s off our clock. One alone among several
        may lie.
        """
        now = int(self._now().timestamp())
        agreeing = [at for at in times if abs(now - at) <= MOST_OFF_SECONDS]
        if 2 * len(agreeing) < len(times):
            theirs = statistics.median_low(times)
            self._offset = theirs - self._elapsed()
            _check(now - theirs)
        elif agreeing:
            self._offset = statistics.median_low(agreeing) - self._elapsed()
        return now


def _check(off: float) -> None:
    if abs(off) > MOST_OFF_SECONDS:
        side = "ahead of" if off > 0 else "behind"
        raise ClockRefused(
            "clock",
            f"{abs(off):.0f} s {side} the witnesses",
            f"at most {MOST_OFF_SECONDS} s off",
            next_command="timedatectl status",
        )
