"""The real signer on a real socket, in a thread of the test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from registry import wire
from registry.signer import Signer
from registry.signing import SignerClient


@contextmanager
def served(signer: Signer, path: Path) -> Iterator[SignerClient]:
    """Serve ``signer`` on the socket ``path`` and give a client of it."""
    with closing(wire.listen(path)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, signer))
        thread.start()
        try:
            yield SignerClient(path)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, signer: Signer) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with closing(connection):
            while (message := wire.receive(connection)) is not None:
                wire.send(connection, signer.answer(message))
