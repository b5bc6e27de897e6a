"""Tessera's dialect of writing, for its hammer: ``POST /add`` takes raw bytes and answers a decimal index.

Never part of a registry: whatever is added skips admission and has no effect on any status, because F1
ignores what is not a signed statement.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from quotary.statements.envelope import MAX_ENTRY
from quotary.tlog.merkle import leaf_hash
from registry.config import load_config
from registry.store import Store, open_store
from tests.fakes.processes import Log, until


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """The hammer hangs up in the middle of its requests when it has enough."""


@contextmanager
def adding(log: Log) -> Iterator[str]:
    """Serve ``/add`` for a running log, and give the address."""
    store = open_store(load_config(log.folder).database_url)
    server = _Quiet(("127.0.0.1", 0), _handler(store))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        store.close()


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Add(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/add" or not 0 < len(body) <= MAX_ENTRY:
                self.send_error(400)
                return
            answer = str(_published(store, body)).encode("ascii")
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Add


def _published(store: Store, entry: bytes) -> int:
    leaf = leaf_hash(entry)
    if not store.read.find_all([leaf]):
        store.write.enqueue([(leaf, entry)], int(time.time()))

    def ask() -> int | None:
        index = store.read.find_all([leaf]).get(leaf)
        return index + 1 if index is not None and index < store.read.published_size() else None

    return until(ask, "the entry is published") - 1
