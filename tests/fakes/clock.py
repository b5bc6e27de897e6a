"""A clock that moves when a test says so."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.fakes.authority import NOW


@dataclass(slots=True)
class SteppedClock:
    """Shows ``NOW`` and so many seconds; its monotonic side began a while ago."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def elapsed(self) -> float:
        return 1000.0 + self.seconds
