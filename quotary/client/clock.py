"""Where a verifier gets its time from: passed in, never taken from the air, and never running backwards."""

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The local clock; a verifier trusts it only as an upper bound (design section 5, Time)."""

    def now(self) -> datetime:
        """Give the local time as an aware UTC time; never earlier than what it gave before."""
        ...

    def elapsed(self) -> float:
        """Give seconds since some fixed moment; nobody can set it back, and it counts sleep where it can."""
        ...


class SystemClock:
    """This machine's clock. A step backwards while the process runs is held at the newest time seen."""

    def __init__(self) -> None:
        self._newest = datetime.fromtimestamp(0, UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            self._newest = max(self._newest, datetime.now(UTC))
            return self._newest

    def elapsed(self) -> float:
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class FixedClock:
    """One moment that does not pass: how kept evidence is judged at its own time."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def elapsed(self) -> float:
        return 0.0
