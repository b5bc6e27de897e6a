"""The cadence of a streamed answer: a frame at fixed times, whatever the model does in between.

Under a policy with ``enclave.stream`` whoever watches a sealed stream sees frames of one length at equal
distances, and how many there are only up to a multiple (docs/formats/sealed.md, "Cadence").
"""

import time
from collections.abc import Callable

from quotary.client.policy import StreamRules

Wait = Callable[[float], object]


class Beat:
    """The times of one stream, ``interval_ms`` apart from when it was made; used by one thread.

    elapsed: seconds since some moment; wait: comes back after so many seconds
    """

    def __init__(
        self,
        rules: StreamRules,
        elapsed: Callable[[], float] = time.monotonic,
        wait: Wait = time.sleep,
    ) -> None:
        self.frames = rules.frames
        self._seconds = rules.interval_ms / 1000
        self._elapsed, self._wait = elapsed, wait
        self._next = elapsed() + self._seconds

    def left(self) -> float:
        """Seconds until the next frame is due, 0 when it is."""
        return max(0.0, self._next - self._elapsed())

    def wait(self) -> None:
        """Wait for the next time, and go on to the one after it; times that were missed are left out."""
        while left := self.left():
            self._wait(left)
        missed = (self._elapsed() - self._next) // self._seconds
        self._next += self._seconds * (1 + missed)
