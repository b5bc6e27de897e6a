"""An OpenAI-compatible proxy on this machine: any OpenAI client verifies by changing its base URL.

It verifies first and refuses by default: a prompt that arrives here leaves only sealed to a machine that
``judge`` has accepted. What it found is on its own page (``/``, ``/verdict.json``) and in its log. It listens
on a loopback address and answers no web page but that one, because a page that a browser has open could
otherwise send prompts here.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from types import MappingProxyType

from quotary.client.answers import ANSWERS, Reply
from quotary.client.files import EvidenceFile
from quotary.client.proxy_page import FILE_HEADERS, PAGE_HEADERS, document, page
from quotary.client.receipt import SALT_HEADER
from quotary.client.session import Client
from quotary.client.verdict import Verdict
from quotary.errors import CannotTell, Judged, NotInLog, QuotaryError, Usage
from quotary.net.listen import taken

log = logging.getLogger(__name__)

MAX_BODY = 8 << 20
_LENGTH = re.compile(r"[0-9]{1,12}")
_PASSED = ("content-type", "retry-after", "x-receipt-id")
# What goes inside the sealed channel and nowhere else: what a client shows to be known, and its own salt.
_SEALED = ("authorization", "x-api-key", SALT_HEADER)
# What may be read through the channel; a name that ends in a slash stands for all below it.
_READ = re.compile(
    r"(/api)?/v1/models|/v1/attestation/report|"
    r"(/v1/models|/v1/receipts|/v1/signature|/v1/browser|/api/v1/tee)/[!-~]{1,256}"
)
_ATTESTATION = re.compile(r"/v1/attestation\?nonce=([0-9a-f]{64})")
# The facts of this module's log lines, by name.
FACTS = ("service", "release", "measurement", "size", "simulated", "checks", "code", "started")
Keep = Callable[[EvidenceFile], None]
Files = Mapping[str, tuple[str, bytes]]
"""Files to show as they are, by path: media type and bytes."""


class Proxy:
    """A server around one client; ``port`` is the kernel's choice where 0 was asked for."""

    def __init__(
        self,
        client: Client,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: Keep | None = None,
        files: Files = MappingProxyType({}),
    ) -> None:
        if not ip_address(host).is_loopback:
            raise Usage(f"the proxy listens on a loopback address, not on {host}: it sees prompts in clear")
        parts = {"client": client, "keep": staticmethod(keep or _forget), "told": staticmethod(_Teller())}
        parts["files"] = files
        handler = type("Handler", (_Handler,), parts)
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise taken(f"{host}:{port}", "--port", error) from error
        self.host, self.port = host, self._server.server_address[1]

    @property
    def url(self) -> str:
        """Give the base URL for an OpenAI client."""
        return f"http://{self.host}:{self.port}/v1"

    @property
    def page(self) -> str:
        """Give the address of the page that says what was verified."""
        return f"http://{self.host}:{self.port}/"

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


class _Teller:
    """Logs each judgement once: of which machine, and by how much of the log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: datetime | None = None

    def __call__(self, verdict: Verdict) -> None:
        with self._lock:
            if self._told == verdict.judged_at:
                return
            self._told = verdict.judged_at
        facts = {"service": verdict.service, "release": verdict.release, "size": verdict.size}
        facts |= {"measurement": verdict.measurement_id.hex(), "simulated": verdict.simulated}
        log.info("proxy.verified", extra=facts | {"checks": len(verdict.checks)})


def _forget(file: EvidenceFile) -> None:
    """Keep nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "quotary-proxy"
    sys_version = ""
    timeout = 300
    client: Client
    keep: Keep
    told: Callable[[Verdict], None]
    files: Files

    def do_GET(self) -> None:  # the name that http.server calls
        if not self._permitted():
            return
        path = self.path.partition("?")[0]
        asked = _ATTESTATION.fullmatch(self.path)
        if path in ("/", "/verdict.json"):
            self._show(path)
        elif path in self.files:
            self._reply(200, *self.files[path], FILE_HEADERS)
        elif asked:
            self._attestation(bytes.fromhex(asked[1]))
        elif _READ.fullmatch(path):
            self._forward("GET", b"")
        else:
            self._unknown()

    def do_POST(self) -> None:
        if not self._permitted():
            return
        length = self.headers.get("Content-Length", "")
        if _LENGTH.fullmatch(length) is None or int(length) > MAX_BODY:
            self._error(413, "too_large", f"a request needs a length, of at most {MAX_BODY} bytes")
        elif self.path not in ANSWERS:
            self._unknown()
        else:
            self._forward("POST", self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a request line may say what somebody asked."""

    def _permitted(self) -> bool:
        """Refuse web pages but this proxy's own: another host name on this address, or a page's origin."""
        named = self.headers.get("Host", "")
        host = named.rpartition(":")[0].strip("[]") or named
        local = host in ("localhost", "127.0.0.1", "::1")
        own = self.headers.get("Origin") in (None, f"http://{named}")
        if local and own and self.headers.get("Sec-Fetch-Site") in (None, "none", "same-origin"):
            return True
        self._error(403, "not_for_browsers", "this proxy serves programs on this machine, not web pages")
        return False

    def _forward(self, method: str, body: bytes) -> None:
        started = False
        try:
            shown = {name: self.headers[name] for name in _SEALED if name in self.headers}
            with self.client.open(method, self.path, body, shown) as reply:
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
            log.warning("proxy.refused", extra={"code": _as_openai(error)[1], "started": started})
            if started:
                # Without its last chunk the answer is visibly cut off: it was not verified to its end.
                self.close_connection = True
            else:
                self._error(*_as_openai(error))
        except OSError:
            self.close_connection = True

    def _show(self, path: str) -> None:
        """Say what was verified, and when; a judgement that is too old is made anew first."""
        try:
            self.told(self.client.attested().verdict)
            refusal = ""
        except QuotaryError as error:
            refusal = str(error)
        newest = self.client.newest
        verdict = None if newest is None else newest.verdict
        if path == "/":
            body, kind = page(self.client.url, verdict, refusal), "text/html; charset=utf-8"
        else:
            body, kind = document(self.client.url, verdict, refusal), "application/json"
        self._reply(503 if refusal else 200, kind, body, PAGE_HEADERS)

    def _attestation(self, nonce: bytes) -> None:
        """Hand over what the machine shows for somebody else's nonce, not judged here."""
        try:
            self._reply(200, "application/json", self.client.document(nonce), FILE_HEADERS)
        except QuotaryError as error:
            self._error(*_as_openai(error))

    def _reply(self, status: int, kind: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _unknown(self) -> None:
        self._error(404, "not_found", "this proxy does not know that path; its own page is /")

    def _start(self, reply: Reply) -> None:
        self.told(reply.verdict)
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
