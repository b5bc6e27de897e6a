"""A mirror over HTTP: the files of its folder under the paths of the log, and a place to leave a revocation.

TLS and limits for callers belong in front of it. What it serves was proven before it was written; whoever
reads it verifies it again.
"""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from quotary.client.forwarding import Forwarded, Forwarder
from quotary.client.source import CHECKPOINT
from quotary.errors import Malformed, QuotaryError
from quotary.statements.envelope import MAX_ENTRY
from quotary.tlog.tiles import TILE_WIDTH, parse_tile_path

REQUEST_SECONDS = 20
TEXT, BYTES, JSON = "text/plain; charset=utf-8", "application/octet-stream", "application/json"
IMMUTABLE, SHORT = "public, max-age=31536000, immutable", "public, max-age=5"


class MirrorServer(ThreadingHTTPServer):
    """Serves ``folder``; ``forwarder`` takes revocations."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], folder: Path, forwarder: Forwarder, report: Callable[[str], None]
    ) -> None:
        super().__init__(address, _Handler)
        self.folder = folder
        self.forwarder = forwarder
        self.report = report


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    server: MirrorServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix("/")
        if path == "healthz":
            self._answer(200, b"ok\n")
        elif path == "revocations":
            found = [_said(one) for one in self.server.forwarder.listed()]
            self._answer(200, json.dumps({"revocations": found}).encode() + b"\n", JSON)
        elif path.startswith("revocations/"):
            self._give(self.server.forwarder.entry(path.removeprefix("revocations/")), BYTES, IMMUTABLE)
        else:
            self._give(*_file(self.server.folder, path))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/revocations":
            self._refuse(404, "only /revocations takes something")
        elif not length.isascii() or not length.isdigit() or int(length) > MAX_ENTRY:
            self._refuse(413, f"an entry has a length of at most {MAX_ENTRY} bytes")
        else:
            self._take(self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing per request; what matters is reported by name."""

    def _take(self, entry: bytes) -> None:
        try:
            found = self.server.forwarder.take(entry)
        except QuotaryError as error:
            self._refuse(400 if isinstance(error, Malformed) else 503, str(error))
            return
        if found.answer is None:
            self.server.report(f"not taken by the log: {found.name}: {found.reason}")
        self._answer(202 if found.answer is None else 200, json.dumps(_said(found)).encode() + b"\n", JSON)

    def _give(self, data: bytes | None, content_type: str, caching: str) -> None:
        if data is None:
            self._refuse(404, "no such file in this copy")
        else:
            self._answer(200, data, content_type, caching)

    def _refuse(self, status: int, detail: str) -> None:
        # The rest of a body that was not read would be taken for another request.
        self.close_connection = self.close_connection or self.command == "POST"
        document = {"type": "about:blank", "status": status, "detail": detail}
        self._answer(status, json.dumps(document).encode() + b"\n", "application/problem+json")

    def _answer(self, status: int, body: bytes, content_type: str = TEXT, caching: str = "no-store") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", caching)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def _file(folder: Path, path: str) -> tuple[bytes | None, str, str]:
    """Give a file of the copy, its type and how long it may be kept; nothing else of the disk has a path."""
    content_type, caching = TEXT, SHORT
    if path != CHECKPOINT:
        try:
            tile = parse_tile_path(path)
        except Malformed:
            return None, TEXT, SHORT
        content_type, caching = BYTES, IMMUTABLE if tile.width == TILE_WIDTH else SHORT
    try:
        return (folder / path).read_bytes(), content_type, caching
    except OSError:
        return None, content_type, caching


def _said(found: Forwarded) -> dict[str, object]:
    return {"leaf_hash": found.name, "answer": found.answer, "reason": found.reason}
