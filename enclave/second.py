"""The second door (docs/formats/ratls.md): TLS ends in here, under a certificate that carries evidence.

The server itself speaks plain HTTP on a unix socket in a folder of this process; one thread takes TLS
connections, with the certificate of the newest keyset, and carries what is inside them there. So the server
knows by the socket which requests came in under an attested key. Imported only where there is such a door:
a start without one has no use for what this takes.
"""

import asyncio
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enclave.secure import Certificates
from quotary.net.endpoint import Endpoint
from quotary.net.listen import BACKLOG

MOST = 256
HANDSHAKE_SECONDS, IDLE_SECONDS = 10.0, 600.0
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Door:
    """outer: where TLS is taken, bound; inner: what the server listens on, bound.

    path: of the inner socket; a request that arrived there came in under an attested key
    """

    outer: socket.socket
    inner: socket.socket
    path: str

    def start(self, certificates: Certificates, most: int = MOST) -> None:
        """Carry what comes in, ``most`` connections at once; called in the process that serves."""
        self.outer.listen(BACKLOG)
        serve = self._serve(certificates, most)
        thread = threading.Thread(target=lambda: asyncio.run(serve), name="ratls")
        thread.daemon = True
        thread.start()

    async def _serve(self, certificates: Certificates, most: int) -> None:
        # What goes wrong in a connection ends that connection, and is told to nobody: it may quote bytes.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        free = asyncio.Semaphore(most)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not certificates.open or free.locked():
                writer.transport.abort()
                return
            async with free:
                await self._carry(reader, writer)

        server = await asyncio.start_server(
            carry,
            sock=self.outer,
            ssl=certificates.context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
        async with server:
            await server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, inner = await asyncio.open_unix_connection(self.path)
        ways = [asyncio.ensure_future(_pump(*way)) for way in ((reader, inner), (inside, writer))]
        # The server's end of the answer ends the connection; the client's end of the request does not.
        await ways[1]
        ways[0].cancel()
        for end in (inner, writer):
            end.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError, TimeoutError):
        while piece := await asyncio.wait_for(source.read(_PIECE), IDLE_SECONDS):
            sink.write(piece)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        return
    sink.close()


@contextmanager
def second_door(listen: str) -> Iterator[Door]:
    """Take ``HOST:PORT`` for TLS; nobody can connect before the server listens."""
    with (
        Endpoint.parse(listen, listen=True).take("--ratls") as outer,
        tempfile.TemporaryDirectory(prefix="enclave-") as folder,
        Endpoint.parse(f"unix:{Path(folder) / 'tls'}", listen=True).take("--ratls") as inner,
    ):
        yield Door(outer, inner, str(inner.getsockname()))
