"""An OpenAI-compatible proxy on this machine: any OpenAI client verifies by changing its base URL.

It verifies first and refuses by default: a prompt that arrives here leaves only sealed to a machine that
``judge`` has accepted. It listens on a loopback address and answers no web page, because a page that a
browser has open could otherwise send prompts here.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

from quotary.client.files import EvidenceFile
from quotary.client.session import CHAT, Client, Reply
from quotary.errors import CannotTell, Judged, NotInLog, QuotaryError, Usage
from quotary.net.listen import taken

log = logging.getLogger(__name__)

MAX_BODY = 8 << 20
_LENGTH = re.compile(r"[0-9]{1,12}")
_PASSED = ("content-type", "retry-after")
Keep = Callable[[EvidenceFile], None]


class Proxy:
    """A server around one client; ``port`` is the kernel's choice where 0 was asked for."""

    def __init__(
        self, client: Client, host: str = "127.0.0.1", port: int = 0, keep: Keep | None = None
    ) -> None:
        if not ip_address(host).is_loopback:
            raise Usage(f"the proxy listens on a loopback address, not on {host}: it sees prompts in clear")
        handler = type("Handler", (_Handler,), {"client": client, "keep": staticmethod(keep or _forget)})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise taken(f"{host}:{port}", "--port", error) from error
        self.host, self.port = host, self._server.server_address[1]

    @property
    def url(self) -> str:
        """Give the base URL for an OpenAI client."""
        return f"http://{self.host}:{self.port}/v1"

    def serve(self) -> None:
        """Answer until ``close``."""
        self._server.serve_forever(poll_interval=0.1)

    def start(self) -> threading.Thread:
        """Answer in a thread of its own."""
        thread = threading.Thread(target=self.serve, name="proxy", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say that a mistake of ours ended a connection, without the traceback, which may quote a prompt."""
        log.error("proxy.failed: %s", type(sys.exception()).__name__)


def _forget(file: EvidenceFile) -> None:
    """Keep nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "quotary-proxy"
    sys_version = ""
    timeout = 300
    client: Client
    keep: Keep

    def do_GET(self) -> None:  # the name that http.server calls
        if self._permitted():
            if self.path == "/v1/models":
                self._forward("GET", b"")
            else:
                self._error(404, "not_found", "this proxy knows /v1/models and /v1/chat/completions")

    def do_POST(self) -> None:
        if not self._permitted():
            return
        length = self.headers.get("Content-Length", "")
        if _LENGTH.fullmatch(length) is None or int(length) > MAX_BODY:
            self._error(413, "too_large", f"a request needs a length, of at most {MAX_BODY} bytes")
        elif self.path != CHAT:
            self._error(404, "not_found", "this proxy knows /v1/models and /v1/chat/completions")
        else:
            self._forward("POST", self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a request line may say what somebody asked."""

    def _permitted(self) -> bool:
        """Refuse web pages: another host name on this address, or a page's origin."""
        host = self.headers.get("Host", "").rpartition(":")[0].strip("[]") or self.headers.get("Host", "")
        local = host in ("localhost", "127.0.0.1", "::1")
        if local and self.headers.get("Origin") is None:
            return True
        self._error(403, "not_for_browsers", "this proxy serves programs on this machine, not web pages")
        return False

    def _forward(self, method: str, body: bytes) -> None:
        started = False
        try:
            with self.client.open(method, self.path, body) as reply:
                # The first piece comes before the status line: what fails at once is still an error.
                first = next(reply.chunks, b"")
                self._start(reply)
                started = True
                for chunk in _joined(first, reply.chunks):
                    self._chunk(chunk)
                if reply.file is not None:
                    self.keep(reply.file)
            self.wfile.write(b"0\r\n\r\n")
        except QuotaryError as error:
            if started:
                # Without its last chunk the answer is visibly cut off: it was not verified to its end.
                self.close_connection = True
            else:
                self._error(*_as_openai(error))
        except OSError:
            self.close_connection = True

    def _start(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name in _PASSED:
            if name in reply.headers:
                self.send_header(name, reply.headers[name])
        self.send_header("Quotary-Release", reply.verdict.release)
        self.send_header("Quotary-Log-Size", str(reply.verdict.size))
        self.send_header("Quotary-Environment", "simulated" if reply.verdict.simulated else "production")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def _error(self, status: int, code: str, message: str) -> None:
        document = {"error": {"message": message, "type": "quotary_error", "param": None, "code": code}}
        body = json.dumps(document).encode("utf-8")
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _as_openai(error: QuotaryError) -> tuple[int, str, str]:
    """Say in OpenAI's shape why nothing was sent, or why the answer is not handed over."""
    if isinstance(error, Judged):
        return 502, "machine_refused", f"the machine was refused: {error}"
    if isinstance(error, NotInLog):
        return 502, "not_in_log", str(error)
    if isinstance(error, CannotTell):
        return 503, "cannot_tell", str(error)
    return 502, "machine_refused", f"the machine was refused: {error}"
