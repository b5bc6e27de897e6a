"""Carry bytes between two endpoints without looking at them: how a machine without a network is reached.

What goes through is sealed or signed, so whoever runs this sees lengths and times, as any proxy does.
"""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from quotary.errors import QuotaryError

MOST = 256
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 600.0

_PIECE = 65_536
_ASK_SECONDS = 0.5

log = logging.getLogger(__name__)


class Forwarder:
    """Takes connections from ``listener`` and carries each to a new one that ``connect`` makes.

    most: connections at once; one more is closed at once
    idle_seconds: a connection on which nothing goes either way for so long is closed
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], socket.socket],
        *,
        most: int = MOST,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._listener, self._connect, self._idle = listener, connect, idle_seconds
        self._closed = threading.Event()
        self._free = threading.BoundedSemaphore(most)

    def serve(self) -> None:
        """Carry until ``close``."""
        # A vsock's accept is not ended by closing it, so it is asked now and then.
        self._listener.settimeout(_ASK_SECONDS)
        while not self._closed.is_set():
            try:
                taken, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if not self._free.acquire(blocking=False):
                log.warning("forward.full")
                taken.close()
                continue
            threading.Thread(target=self._carry, args=(taken,), name="forward", daemon=True).start()

    def start(self) -> threading.Thread:
        """Carry in a thread of its own."""
        thread = threading.Thread(target=self.serve, name="forwarder", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Take no more connections."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _carry(self, taken: socket.socket) -> None:
        with taken:
            try:
                made = self._connect()
            except QuotaryError as error:
                log.warning("forward.unreachable", extra={"error": type(error).__name__})
            else:
                with made:
                    self._both_ways(taken, made)
            finally:
                self._free.release()

    def _both_ways(self, one: socket.socket, other: socket.socket) -> None:
        for end in (one, other):
            end.settimeout(self._idle)
        back = threading.Thread(target=_pump, args=(other, one), name="forward", daemon=True)
        back.start()
        _pump(one, other)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry one way to its end, and pass the end on; a broken way breaks the other one too."""
    try:
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
