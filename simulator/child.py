"""A child process whose end is known at once, and that gets the signals that we get."""

import os
import select
import signal
import subprocess
from types import FrameType

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Child:
    """A started process; ``close`` kills it if it still runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        # A process descriptor is readable from the very end on, even while another thread waits for it.
        self._ended = os.pidfd_open(process.pid)

    @property
    def has_ended(self) -> bool:
        return bool(select.select([self._ended], [], [], 0)[0])

    def wait(self, limit_seconds: float | None = None) -> int:
        """Wait for the end, passing signals on; the exit code, or 128 plus the signal that ended it.

        Raises ``subprocess.TimeoutExpired`` after ``limit_seconds``. Only the main thread may wait.
        """
        before = {number: signal.signal(number, self._forward) for number in FORWARDED}
        try:
            code = self.process.wait(limit_seconds)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        if not self.has_ended:
            self.process.kill()
        self.process.wait()
        os.close(self._ended)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.process.send_signal(number)
