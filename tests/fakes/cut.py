"""A stand-in for a PostgreSQL server's socket that cuts a connection at a COMMIT, before it lands or after."""

import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
# A simple query (protocol version 3.0, message formats "Query" and "CommandComplete").
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


@dataclass(slots=True)
class Cut:
    """The next COMMIT but ``countdown`` is cut off; below zero none is. ``before`` and ``after`` count them."""

    folder: Path
    countdown: int = -1
    lands: bool = False
    before: int = 0
    after: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self) -> bool:
        """Count a COMMIT, and say whether it is the one."""
        with self.lock:
            self.countdown -= 1
            if self.countdown != -1:
                return False
            if self.lands:
                self.after += 1
            else:
                self.before += 1
            return True


@contextmanager
def cutting(server: Path) -> Iterator[Cut]:
    """Listen in a folder of its own, and forward to the socket in ``server``."""
    with (
        tempfile.TemporaryDirectory(prefix="cut") as folder,
        closing(socket.socket(socket.AF_UNIX)) as listener,
    ):
        cut = Cut(Path(folder))
        listener.bind(str(cut.folder / SOCKET))
        listener.listen()
        thread = threading.Thread(target=_accept, args=(listener, server / SOCKET, cut), daemon=True)
        thread.start()
        try:
            yield cut
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket, server: Path, cut: Cut) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_forward, args=(client, server, cut), daemon=True).start()


def _forward(client: socket.socket, server: Path, cut: Cut) -> None:
    """Carry bytes both ways until one side hangs up or the connection is cut."""
    with closing(client), closing(socket.socket(socket.AF_UNIX)) as upstream, suppress(OSError):
        upstream.connect(str(server))
        muted = False
        while True:
            ready, _, _ = select.select([client, upstream], [], [])
            for source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                if source is client:
                    if COMMIT in data and cut.decide():
                        if not cut.lands:
                            return
                        muted = True
                    upstream.sendall(data)
                elif not muted:
                    client.sendall(data)
                elif COMMITTED in data:
                    return
