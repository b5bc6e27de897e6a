"""gunicorn's threaded worker, for a registry that no front server shields.

A client that sends slowly holds a thread until it is done. nginx takes such clients upon itself, and reaches
us from this machine, whose connections are not counted. Of everyone else, one network may have a quarter of
the threads at a time, and each of them for half a minute.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from gunicorn.workers.gthread import TConn, ThreadWorker

from registry import problems
from registry.errors import Busy
from registry.quota import is_loopback, sender

SHARE = 4
LEAST = 2
HELD_SECONDS = 30.0
RETRY_SECONDS = 5

_HEAD = (
    "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: {}\r\nCache-Control: no-store\r\n"
    "Content-Type: {}\r\nContent-Length: {}\r\n\r\n"
)


class Held:
    """The connections from afar that hold a thread or wait for one, by network."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._since: dict[object, tuple[str, float]] = {}

    def take(self, connection: object, peer: str) -> bool:
        """Count a connection, and say whether its network may have one more."""
        if not peer or is_loopback(peer):
            return True
        name = sender(peer, None)
        if self._counts[name] >= self._most:
            return False
        self._counts[name] += 1
        self._since[connection] = name, self._clock()
        return True

    def give(self, connection: object) -> None:
        """Count it no longer."""
        name, _ = self._since.pop(connection, ("", 0.0))
        if name:
            self._counts[name] -= 1
            self._counts += Counter()

    def overdue(self) -> list[object]:
        """Give the connections that have had their time."""
        now = self._clock()
        return [found for found, (_, at) in self._since.items() if now - at > HELD_SECONDS]


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """All of its methods are called by the one thread that accepts connections."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._held = Held(most(self.cfg.threads))

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread, or close it."""
        if self._held.take(conn, conn.client[0] if conn.client else ""):
            super().enqueue_req(conn)
            return
        with suppress(OSError):
            conn.sock.setblocking(False)
            conn.sock.send(refusal())
        self.nr_conns -= 1
        conn.close()

    def finish_request(self, conn: TConn, fs: object) -> None:
        """Take a connection back from its thread."""
        self._held.give(conn)
        super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Close what waits too long, once a second; and hang up on those who hold a thread too long."""
        super().murder_pending()
        for conn in self._held.overdue():
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]  # a TConn


def most(threads: int) -> int:
    """How many of a worker's threads one network may hold."""
    return max(LEAST, threads // SHARE)


def refusal() -> bytes:
    """Give the answer to one connection too many, which nobody has read from."""
    error = Busy("this address has too many requests at once", RETRY_SECONDS)
    body = json.dumps(problems.members(problems.of(error))) + "\n"
    return (_HEAD.format(RETRY_SECONDS, problems.MEDIA_TYPE, len(body)) + body).encode("ascii")
