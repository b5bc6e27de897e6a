"""The address that an enclave is reached at: the server's own socket, or a vsock that is carried to it.

The server speaks TCP and unix sockets only. Where the enclave listens on a vsock (Nitro) it therefore serves
on a unix socket in a folder of its own, and a forwarder in the same process carries connections there. A unix
address goes the same way, so that everything but the vsock itself is tested.
"""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quotary.net.endpoint import Endpoint
from quotary.net.forward import CONNECT_SECONDS, Forwarder
from quotary.net.listen import BACKLOG, take_address

MOST = 256


@dataclass(frozen=True, slots=True)
class Front:
    """inner: what the server listens on, bound; outer: what is carried to it, bound, or None."""

    inner: socket.socket
    outer: socket.socket | None = None
    inside: Endpoint | None = None

    def start(self) -> None:
        """Carry what comes from outside; called in the process that serves."""
        if self.outer is not None and self.inside is not None:
            inside = self.inside
            self.outer.listen(BACKLOG)
            Forwarder(self.outer, lambda: inside.connect(CONNECT_SECONDS), most=MOST).start()


@contextmanager
def front(listen: str, option: str = "--listen") -> Iterator[Front]:
    """Take ``HOST:PORT``, ``vsock:PORT`` or ``unix:/PATH``; nobody can connect before the server listens."""
    end = Endpoint.parse(listen, listen=True)
    if end.kind == "tcp":
        with take_address(listen, option) as listener:
            yield Front(listener)
        return
    with end.take(option) as outer, carried(outer) as found:
        yield found


@contextmanager
def carried(outer: socket.socket) -> Iterator[Front]:
    """Put a socket of any kind in front of the server."""
    with tempfile.TemporaryDirectory(prefix="enclave-") as folder:
        inside = Endpoint.parse(f"unix:{Path(folder) / 'http'}", listen=True)
        with inside.take("--listen") as inner:
            yield Front(inner, outer, inside)
