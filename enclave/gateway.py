"""The gateway of Oblivious HTTP inside the enclave (docs/formats/oblivious.md): capsules in, capsules out.

Its key stands in the attested keyset, so what a relay passes on opens here and nowhere else, and it opens
once. Inside is an ordinary request: a sealed one, or one of those that the channel itself takes. Whatever
goes wrong after a capsule was opened is answered inside it.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enclave.keyset import LiveKeyset
from enclave.replay import Replayed
from quotary.client.oblivious import CAPSULES, key_number
from quotary.errors import Refused, Rejected, Unsupported
from quotary.oblivious import ohttp
from quotary.oblivious.binary_http import END, Request, ResponseHead, chunk
from quotary.oblivious.ohttp import ChunkedSealing, GatewayKey, Sealer

MAX_CAPSULES = 1 << 18
"""Capsules that one key opens; then it opens no more, because forgetting would admit a replay."""


class Gateway:
    """One keyset's gateway key and the capsules that it has opened."""

    __slots__ = ("_key", "_lock", "_opened", "public")

    def __init__(self) -> None:
        private = X25519PrivateKey.generate()
        self.public = private.public_key().public_bytes_raw()
        self._key = GatewayKey(key_number(self.public), private)
        self._opened: set[bytes] = set()
        self._lock = threading.Lock()

    @property
    def config(self) -> ohttp.KeyConfig:
        return self._key.config

    def open(self, wire: bytes, media_type: str) -> "Opened":
        """Open a capsule for the first time; ``Rejected``, ``Malformed``, ``Unsupported`` or ``Replayed``."""
        chunked = media_type == ohttp.CHUNKED_REQUEST_TYPE
        data, sealer = (self._key.open_chunked if chunked else self._key.open)(wire)
        # The key share names the capsule: nothing else opens under it.
        mark = hashlib.sha256(wire[: 7 + ohttp.KEY_LENGTH]).digest()[:16]
        with self._lock:
            if mark in self._opened:
                raise Replayed("replay", "a capsule that was opened before", "a new one")
            if len(self._opened) >= MAX_CAPSULES:
                raise Refused(
                    "replay", "a full memory of capsules", f"fewer than {MAX_CAPSULES} to one keyset"
                )
            self._opened.add(mark)
        return Opened(Request.parse(data), sealer, CAPSULES[media_type])


def open_with(live: Sequence[LiveKeyset], wire: bytes, media_type: str) -> tuple[LiveKeyset, "Opened"]:
    """Open a capsule with whichever of these keysets, whose keys have its number, it was sealed to."""
    if media_type not in CAPSULES:
        raise Unsupported(f"a capsule of the type {media_type or 'none'}")
    for keyset in live[:-1]:
        assert keyset.gateway is not None
        with suppress(Rejected):
            return keyset, keyset.gateway.open(wire, media_type)
    assert live[-1].gateway is not None
    return live[-1], live[-1].gateway.open(wire, media_type)


@dataclass(frozen=True, slots=True)
class Opened:
    """A request out of a capsule, and what seals its answer."""

    request: Request
    sealer: Sealer | ChunkedSealing
    media_type: str

    @property
    def content_type(self) -> str:
        """The request's media type, empty where it names none or several."""
        found = [value for name, value in self.request.fields if name == "content-type"]
        return found[0] if len(found) == 1 else ""


class Inner(Protocol):
    """A body that is being made, as a WSGI server sees it."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class ObliviousBody:
    """Seals an answer into a capsule while it is made; closing it closes the answer."""

    def __init__(self, opened: Opened, status: int, headers: Mapping[str, str], inner: Inner) -> None:
        self._inner = inner
        head = ResponseHead(status, tuple(sorted(headers.items()))).encode()
        if isinstance(opened.sealer, ChunkedSealing):
            self._pieces = _chunked(opened.sealer, head, inner)
        else:
            self._pieces = _whole(opened.sealer, head, inner)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._inner.close()


def _chunked(sealer: ChunkedSealing, head: bytes, inner: Inner) -> Iterator[bytes]:
    yield sealer.start() + sealer.data(head)
    for piece in inner:
        if piece:
            yield sealer.data(chunk(piece))
    yield sealer.end(END)


def _whole(sealer: Sealer, head: bytes, inner: Inner) -> Iterator[bytes]:
    yield sealer.seal(head + b"".join(chunk(piece) for piece in inner) + END)
