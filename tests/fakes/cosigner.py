"""A real witness on a loopback port, in a thread of the test; its folder can be another one for each case."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from registry.witness_app import create_app
from tests.fakes.authority import NOW


class Cosigner:
    """``folder`` is where the witness remembers; ``url`` is where it is asked."""

    def __init__(self) -> None:
        self.folder = Path()
        self.url = ""

    def __call__(self, environ, start_response) -> Iterable[bytes]:  # type: ignore[no-untyped-def]  # WSGI
        return create_app(str(self.folder), lambda: NOW)(environ, start_response)


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """The test's output is not an access log."""


@contextmanager
def cosigning() -> Iterator[Cosigner]:
    """Serve a witness until the end of the block."""
    witness = Cosigner()
    server = make_server("127.0.0.1", 0, witness, threaded=True, request_handler=_Quiet)
    witness.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield witness
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
