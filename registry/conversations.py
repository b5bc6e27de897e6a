"""Answering on a unix socket, with a thread for each connection, until what was asked is answered."""

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

END_SECONDS = 5.0

Answering = Callable[[socket.socket], None]
"""Answers what comes on a connection until its other end is done."""


def converse(answering: Answering, listener: socket.socket, stopped: socket.socket) -> None:
    """Answer until ``stopped`` can be read, and end what is being answered."""
    listener.setblocking(False)
    conversations = _Conversations(answering)
    while stopped not in select.select([listener, stopped], [], [])[0]:
        with suppress(BlockingIOError):  # who hung up before his turn
            conversations.begin(listener.accept()[0])
    conversations.end()


class _Conversations:
    """Connections, each with a thread of its own; an asker closes his after his last answer."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._running: list[threading.Thread] = []

    def begin(self, connection: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        thread.start()
        self._running = [thread, *(other for other in self._running if other.is_alive())]

    def end(self) -> None:
        """Wait until every asker is done; whoever hangs is left behind."""
        deadline = time.monotonic() + END_SECONDS
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, connection: socket.socket) -> None:
        with closing(connection):
            connection.setblocking(True)
            self._answering(connection)
