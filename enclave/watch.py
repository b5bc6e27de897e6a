"""The thread that asks the log again every ``poll_seconds``, with jitter, for as long as the process
lives.
"""

import secrets
import threading
from collections.abc import Callable

_JITTER = 0.2


class Watcher:
    """Calls ``poll`` from a thread of its own. ``poll`` must not raise; should it, the enclave goes
    stale by age.
    """

    def __init__(self, poll: Callable[[], None], poll_seconds: float) -> None:
        self._poll, self._poll_seconds = poll, poll_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop and wait."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # A fleet that was started together must not ask together.
        while not self._stop.wait(pause(self._poll_seconds, secrets.randbelow(1001) / 1000)):
            self._poll()


def pause(poll_seconds: float, draw: float) -> float:
    """Seconds to wait; ``draw`` from 0 to 1 spreads them by a fifth to either side."""
    return poll_seconds * (1 - _JITTER + 2 * _JITTER * draw)
