"""Messages on the registry's unix sockets: four bytes of length (big-endian), then so many bytes.

To and from the signer they are canonical JSON (docs/formats/signer.md), to the judge entries.
"""

import os
import socket
from pathlib import Path

from quotary.canonical import canonical, parse_canonical
from quotary.errors import Malformed

MAX_MESSAGE = 65_536
LONGEST_PATH = 100
# One connection too many is refused at once, however long its asker would wait.
MOST_WAITING = 1024


def send(connection: socket.socket, message: object) -> None:
    """Send one message."""
    send_bytes(connection, canonical(message))


def receive(connection: socket.socket) -> object | None:
    """Receive one message; None when the other side is done."""
    body = receive_bytes(connection, MAX_MESSAGE)
    return None if body is None else parse_canonical(body, MAX_MESSAGE)


def send_bytes(connection: socket.socket, body: bytes) -> None:
    """Send some bytes with their length before them."""
    connection.sendall(_framed(body))


def receive_bytes(connection: socket.socket, limit: int) -> bytes | None:
    """Receive such bytes, at most ``limit``; None when the other side is done."""
    header = _exactly(connection, 4)
    if not header:
        return None
    length = int.from_bytes(header)
    if len(header) != 4 or not 0 < length <= limit:
        raise Malformed(f"a message has 1 to {limit} bytes")
    body = _exactly(connection, length)
    if len(body) != length:
        raise Malformed(f"the message ends after {len(body)} of {length} bytes")
    return body


def connect(path: Path, timeout_seconds: float) -> socket.socket:
    """Connect to a unix socket, also where its path is longer than the 107 bytes that an address holds."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        with _Folder(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection


def listen(path: Path) -> socket.socket:
    """Listen on a unix socket that only its owner may open."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    with _Folder(path) as name:
        before = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(before)
    listener.listen(MOST_WAITING)
    return listener


class _Folder:
    """Names a socket through an open descriptor of its folder where the plain path is too long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= LONGEST_PATH:
            return str(self._path)
        self._descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4) + body


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return bytes(data)
