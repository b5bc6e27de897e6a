"""The only outgoing connections: HTTP with limits on bytes and time, and no trust in what comes back.

Nothing is retried, no redirect is followed, no proxy is taken from the environment: a caller knows exactly
which connections it causes. Plain ``http`` is for this machine only, unless the caller says otherwise.
"""

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import NoReturn, Protocol
from urllib.parse import urlsplit

import urllib3

from quotary.errors import CannotTell, Usage
from quotary.net.bounded import bounded, bounded_pool, shown_pool

CHUNK = 65_536
OVERHEAD = 262_144


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much one request may take.

    connect_seconds: until the connection stands
    read_seconds:    between two pieces of the answer
    total_seconds:   until the answer is complete; a server that drips bytes meets it
    length:          bytes of the answer's body
    """

    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    total_seconds: float = 60.0
    length: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What to send where."""

    url: str
    method: str = "GET"
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of any status; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer still arriving; ``chunks`` raises ``CannotTell`` at a limit or where it breaks off."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Transport(Protocol):
    """Sends one request and returns what came back, believed by nobody; no answer is ``CannotTell``."""

    def send(self, request: Request) -> Reply:
        """Return the whole answer."""
        ...

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        """Return the answer while it arrives; leaving the context closes the connection, complete or not."""
        ...


class Offline:
    """A transport that opens no socket."""

    def send(self, request: Request) -> Reply:
        self._refuse(request)

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        self._refuse(request)

    def _refuse(self, request: Request) -> NoReturn:
        raise CannotTell(
            f"offline: {request.method} {request.url} was not sent", next_command="repeat without --offline"
        )


class HTTP:
    """HTTP/1.1, over TLS with the system's certificate authorities; connections are kept and reused.

    shown: judges a server's certificate (DER) in the authorities' place, or raises; then TLS 1.3 alone
    """

    def __init__(self, *, plain_http: bool = False, shown: Callable[[bytes], None] | None = None) -> None:
        self._plain_http, self._attested = plain_http, shown is not None
        self._pool = bounded_pool() if shown is None else shown_pool(shown)

    def send(self, request: Request) -> Reply:
        with self.open(request) as stream:
            return Reply(stream.status, stream.headers, b"".join(stream.chunks))

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        self._permit(request.url)
        deadline = time.monotonic() + request.limits.total_seconds
        with (
            bounded(deadline, _on_the_wire(request.limits)),
            closing(self._start(request, deadline)) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers.items()}
            _check_headers(headers, request)
            yield Stream(response.status, headers, _chunks(response, request, deadline))

    def close(self) -> None:
        """Close every kept connection."""
        self._pool.clear()

    def _permit(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError as error:
            raise Usage(f"not an http or https address: {url}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise Usage(f"not an http or https address: {url}")
        if parts.scheme == "http" and self._attested:
            raise Usage(f"a certificate is shown over https only, found {url}")
        if parts.scheme == "http" and not self._plain_http and not is_loopback(host):
            raise Usage(f"plain http is only for this machine, found {url}", next_command="use https")

    def _start(self, request: Request, deadline: float) -> urllib3.BaseHTTPResponse:
        limits = request.limits
        try:
            return self._pool.request(
                request.method,
                request.url,
                body=request.body,
                headers={"Accept-Encoding": "identity", **request.headers},
                timeout=urllib3.Timeout(connect=limits.connect_seconds, read=limits.read_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.LocationParseError as error:
            raise Usage(f"not an http or https address: {request.url}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            _check_time(request, deadline, error)
            raise CannotTell(f"no answer from {request.url}: {_cause(error)}") from error


def _on_the_wire(limits: Limits) -> int:
    """How many bytes an answer of the longest body may take with its header and the heads of its chunks."""
    return 4 * limits.length + OVERHEAD


def _check_headers(headers: Mapping[str, str], request: Request) -> None:
    length, limit = headers.get("content-length", ""), request.limits.length
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise CannotTell(f"{request.url} wants to send {length[:20]} bytes, the limit is {limit}")
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise CannotTell(f"{request.url} answered in the encoding {encoding}, wanted identity")


def _chunks(response: urllib3.BaseHTTPResponse, request: Request, deadline: float) -> Iterator[bytes]:
    length, limits = 0, request.limits
    try:
        # read1 hands over what has arrived: a stream of small events is not held back to fill a buffer.
        while chunk := response.read1(CHUNK):
            length += len(chunk)
            if length > limits.length:
                raise CannotTell(f"{request.url} sent more than {limits.length} bytes")
            _check_time(request, deadline)
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as error:
        _check_time(request, deadline, error)
        raise CannotTell(f"the answer of {request.url} broke off: {_cause(error)}") from error


def _check_time(request: Request, deadline: float, cause: Exception | None = None) -> None:
    if time.monotonic() >= deadline:
        seconds = request.limits.total_seconds
        raise CannotTell(f"{request.url} was not complete after {seconds:g} s") from cause


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cause(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
