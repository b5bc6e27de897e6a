"""A client without manners: sends bytes as they are, and counts the answers that come back."""

import re
import select
import socket
import time
from dataclasses import dataclass

QUIET_SECONDS = 0.15
MOST_SECONDS = 20.0

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n")


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back on one connection.

    statuses:      of the answers, in order; interim ones (100) are left out
    first_seconds: until the first byte or the end, whichever came first; the whole wait where nothing came
    """

    statuses: tuple[int, ...]
    data: bytes
    first_seconds: float


def exchange(address: str, sent: bytes, *, patience_seconds: float = MOST_SECONDS) -> Heard:
    """Send everything on a new connection and read until it closes or stays quiet.

    patience_seconds: how long to wait for the first byte
    """
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), MOST_SECONDS) as connection:
        connection.setblocking(False)
        started = time.monotonic()
        data, first = _talk(connection, sent, patience_seconds, started)
    statuses = tuple(int(found) for found in _STATUS.findall(data) if found != b"100")
    return Heard(statuses, data, first if first is not None else time.monotonic() - started)


def _talk(
    connection: socket.socket, sent: bytes, patience_seconds: float, started: float
) -> tuple[bytes, float | None]:
    data, first, left = b"", None, memoryview(sent)
    deadline = started + MOST_SECONDS
    while time.monotonic() < deadline:
        patience = QUIET_SECONDS if data else patience_seconds
        readable, writable, _ = select.select([connection], [connection] if left else [], [], patience)
        if not readable and not writable:
            break
        try:
            if writable:
                left = left[connection.send(left[:65_536]) :]
            if readable:
                more = connection.recv(65_536)
                first = first if first is not None else time.monotonic() - started
                if not more:
                    break
                data += more
        except (BrokenPipeError, ConnectionResetError):
            first = first if first is not None else time.monotonic() - started
            left = memoryview(b"")
            data += _rest(connection)
            break
    return data, first


def _rest(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except OSError:
        return b""
