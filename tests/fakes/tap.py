"""A listener on the wire: carries TCP connections to another address and keeps every byte of both directions."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 65_536


@dataclass(slots=True)
class Tap:
    """What went to ``target`` (host, port), and what came back."""

    listener: socket.socket
    target: tuple[str, int]
    sent: bytearray = field(default_factory=bytearray)
    returned: bytearray = field(default_factory=bytearray)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def seen(self) -> bytes:
        return bytes(self.sent + self.returned)

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                threading.Thread(target=self._carry, args=(taken,), daemon=True).start()

    def _carry(self, taken: socket.socket) -> None:
        with taken, suppress(OSError), socket.create_connection(self.target, 10) as made:
            made.settimeout(None)
            back = threading.Thread(target=_pump, args=(made, taken, self.returned), daemon=True)
            back.start()
            _pump(taken, made, self.sent)
            back.join(60)


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            kept += piece
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def tapped(address: str) -> Iterator[Tap]:
    """Listen between somebody and ``HOST:PORT``, or ``http://HOST:PORT``."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tap = Tap(listener, (host, int(port)))
        thread = threading.Thread(target=tap.serve, daemon=True)
        thread.start()
        yield tap
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
