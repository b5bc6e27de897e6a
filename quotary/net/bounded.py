"""Connections whose answers end: at a time, and after so many bytes, whatever part of them is still to come.

A library's timeout begins again with each byte that arrives; a server that drips its header lines, its
interim answers or the length of a chunk would be waited for without end.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import urllib3


@dataclass(frozen=True, slots=True)
class _Bounds:
    deadline: float
    length: int


_BOUNDS: ContextVar[_Bounds] = ContextVar("bounds of the answer to come")


@contextmanager
def bounded(deadline: float, length: int) -> Iterator[None]:
    """Bound the answer that begins within this context: by the monotonic clock, and in bytes on the wire."""
    token = _BOUNDS.set(_Bounds(deadline, length))
    try:
        yield
    finally:
        _BOUNDS.reset(token)


class _Pieces(io.RawIOBase):
    """The bytes that arrive on a socket, until a bound is met: ``TimeoutError`` or ``OSError``."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, bounds: _Bounds) -> None:
        self._raw = raw
        self._connection = connection
        self._patience = connection.gettimeout()
        self._bounds = bounds
        self._length = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]  # the base has no type
        left = self._bounds.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer was not complete in time")
        self._connection.settimeout(left if self._patience is None else min(left, self._patience))
        found: int | None = self._raw.readinto(buffer)
        self._connection.settimeout(self._patience)
        self._length += found or 0
        if self._length > self._bounds.length:
            raise OSError(f"the answer has more than {self._bounds.length} bytes on the wire")
        return found

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Pieces(self.fp.detach(), sock, _BOUNDS.get()))


class _Plain(urllib3.connection.HTTPConnection):
    response_class = _Answer


class _Secure(urllib3.connection.HTTPSConnection):
    response_class = _Answer


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


def bounded_pool() -> urllib3.PoolManager:
    """Make a pool of such connections."""
    pool = urllib3.PoolManager(num_pools=8, maxsize=4, block=False)
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return pool


def shown_pool(shown: Callable[[bytes], None]) -> urllib3.PoolManager:
    """Make a pool that speaks TLS 1.3 with whoever answers; ``shown`` judges its certificate (DER) or raises.

    No authority is asked: a certificate that carries evidence has none. Nothing is sent before it is judged.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    class Shown(_Secure):
        def connect(self) -> None:
            super().connect()
            assert isinstance(self.sock, ssl.SSLSocket)
            try:
                shown(self.sock.getpeercert(binary_form=True) or b"")
            except BaseException:
                self.close()
                raise
            self.is_verified = True

    class ShownPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Shown

    pool = urllib3.PoolManager(
        num_pools=8, maxsize=4, block=False, ssl_context=context, assert_hostname=False
    )
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": ShownPool}
    return pool
