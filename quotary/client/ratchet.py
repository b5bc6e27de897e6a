"""Sessions of the sealed channel: a key for each request, which is gone when it was used
(docs/formats/sealed.md, "Sessions").

A one-shot request is as secret as the enclave's channel key, for as long as that lives: an hour. In a session
the head of each request is sealed under a key of its own. The first comes from two secrets: the one of the
request that opened the session, and one that the client seals to an X-Wing key made for this session alone
and forgotten with its first use. Each key is hashed forward and forgotten, so whoever takes the enclave's
memory later reads nothing of what was asked before. Everything behind the head is as in a one-shot request.
"""

import hashlib
import os
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.client import frames
from quotary.client.frames import BUCKETS
from quotary.client.sealed import (
    ENC_LENGTH,
    KEY_LENGTH,
    MAX_HEAD,
    Head,
    OpenedRequest,
    PrivateKey,
    ResponseOpener,
    encrypt,
    open_body,
    seal_body,
)
from quotary.errors import Malformed, Refused, Rejected

VERSION = 2
PATH = "/v1/session"
ID_LENGTH = 16

_FIXED = struct.Struct(f">B{ID_LENGTH}sIH")
_LABEL = b"quotary-session/v1 "
_TAG = 16
_SECRET = 32
_OPENING = ENC_LENGTH + _SECRET + _TAG
_MAX_HEAD = _OPENING + MAX_HEAD + _TAG
_MAX_NUMBER = 2**32 - 1


class SessionEnded(Refused):
    """The enclave does not have this session (any more): open another one."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the enclave answers to ``POST /v1/session``, inside the channel.

    name:         16 bytes
    public:       an X-Wing key of 1216 bytes, for this session alone
    idle_seconds: how long an unused session lives
    """

    name: bytes
    public: bytes
    idle_seconds: int

    @classmethod
    def parse(cls, data: bytes) -> "Offer":
        fields = Fields(parse_canonical(data, MAX_HEAD), "session offer")
        found = cls(
            fields.hexbytes("session", ID_LENGTH),
            fields.base64("key", length=KEY_LENGTH),
            fields.integer("idle_seconds", 1),
        )
        fields.done()
        return found

    def encode(self) -> bytes:
        return canonical(
            {"session": self.name.hex(), "key": b64(self.public), "idle_seconds": self.idle_seconds}
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """What both ends know of the one-shot request that opened a session.

    secret:     its ``resp_secret``
    transcript: its own
    keyset:     digest of the keyset that it was sealed under
    """

    secret: bytes
    transcript: bytes
    keyset: bytes

    def first(self, offer: Offer, second: bytes) -> "Step":
        """Derive the first step from both secrets."""
        info = _LABEL + b"root\n" + offer.name + offer.public + self.keyset
        chain = HKDF(hashes.SHA256(), 32, salt=self.transcript, info=info).derive(self.secret + second)
        return Step(0, chain)

    def info(self, offer: Offer) -> bytes:
        """What the second secret is sealed under."""
        return _LABEL + b"second\n" + offer.name + self.transcript + self.keyset


@dataclass(frozen=True, slots=True)
class Step:
    """The state of a session before its ``number``-th request; whoever goes on must forget it."""

    number: int
    chain: bytes

    def next(self) -> "Step":
        if self.number == _MAX_NUMBER:
            raise SessionEnded("session", "its last number", "a new session")
        return Step(self.number + 1, self._derive(b"next\n"))

    def seal(self, fixed: bytes, head: bytes) -> bytes:
        key = self._derive(b"head\n")
        return AESGCM(key[:32]).encrypt(key[32:44], head, fixed)

    def open(self, fixed: bytes, sealed: bytes) -> bytes:
        key = self._derive(b"head\n")
        try:
            return AESGCM(key[:32]).decrypt(key[32:44], sealed, fixed)
        except InvalidTag:
            raise Rejected(
                "sealed head", f"a head that does not open as number {self.number}", "the session's next one"
            ) from None

    def _derive(self, label: bytes) -> bytes:
        length = 44 if label == b"head\n" else 32
        return HKDF(hashes.SHA256(), length, salt=None, info=_LABEL + label).derive(self.chain)


class SessionClient:
    """The client's end; one request at a time, in order."""

    __slots__ = ("_offer", "_opened", "_second", "_step")

    def __init__(self, offer: Offer, opening: Opening) -> None:
        second = os.urandom(_SECRET)
        self._offer = offer
        self._second = encrypt(offer.public, second, opening.info(offer))
        self._step = opening.first(offer, second)

    def seal(self, head: Head, body: bytes) -> tuple[bytes, ResponseOpener]:
        """Seal the next request; its key is gone afterwards."""
        step, plaintext = self._step, frames.pad(0, head.encode(), BUCKETS[0])
        opening = b"" if step.number else self._second
        length = len(opening) + len(plaintext) + _TAG
        fixed = _FIXED.pack(VERSION, self._offer.name, step.number, length)
        sealed = opening + step.seal(fixed, plaintext)
        self._step = step.next()
        transcript = _transcript(fixed, sealed)
        wire = fixed + sealed + seal_body(head, transcript, body)
        return wire, ResponseOpener(head, transcript, wire)


class SessionServer:
    """The enclave's end. The caller lets one thread in at a time, and keeps time."""

    __slots__ = ("_key", "_opening", "_step", "offer")

    def __init__(self, opening: Opening, name: bytes, idle_seconds: int) -> None:
        key = PrivateKey()
        self.offer = Offer(name, key.public, idle_seconds)
        self._key: PrivateKey | None = key
        self._opening: Opening | None = opening
        self._step: Step | None = None

    def open(self, wire: bytes) -> OpenedRequest:
        """Open the next request of this session.

        Any other number is ``SessionEnded``. What does not open changes nothing: anybody can send it.
        """
        fixed, number, sealed, rest = _split(wire)
        step = self._step
        if number != (0 if step is None else step.number):
            found = f"request {number}"
            raise SessionEnded("session", found, "each request once and in order; open another session")
        opening = b""
        if step is None:
            opening, step = sealed[:_OPENING], self._first(sealed)
        flags, encoded = frames.unpad(step.open(fixed, sealed[len(opening) :]))
        if flags:
            raise Malformed("sealed head has frame flags")
        # From here on neither the session's own key nor this request's is left anywhere.
        self._step, self._key, self._opening = step.next(), None, None
        head, transcript = Head.parse(encoded), _transcript(fixed, sealed)
        body = open_body(head, transcript, rest)
        return OpenedRequest(head, body, sealed, hashlib.sha256(wire).digest(), transcript)

    def _first(self, sealed: bytes) -> Step:
        assert self._key is not None
        assert self._opening is not None
        if len(sealed) <= _OPENING:
            raise Malformed("the first request of a session brings no second secret")
        second = self._key.open(sealed[:_OPENING], self._opening.info(self.offer))
        return self._opening.first(self.offer, second)


def is_session(wire: bytes) -> bool:
    """Tell a request of a session from a one-shot one."""
    return wire[:1] == bytes([VERSION])


def session_name(wire: bytes) -> bytes:
    """Read which session a request belongs to; proves nothing."""
    return _split(wire)[0][1 : 1 + ID_LENGTH]


def _split(wire: bytes) -> tuple[bytes, int, bytes, bytes]:
    if len(wire) < _FIXED.size:
        raise frames.StreamTruncated(f"stream truncated in its fixed header: {len(wire)} bytes")
    fixed = wire[: _FIXED.size]
    version, _, number, length = _FIXED.unpack(fixed)
    if version != VERSION or not _TAG < length <= _MAX_HEAD:
        raise Malformed(f"session request of version {version} with a head of {length} bytes")
    if len(wire) < _FIXED.size + length:
        raise frames.StreamTruncated(f"stream truncated in its head: {len(wire)} bytes")
    return fixed, number, wire[_FIXED.size : _FIXED.size + length], wire[_FIXED.size + length :]


def _transcript(fixed: bytes, sealed: bytes) -> bytes:
    return hashlib.sha256(_LABEL + b"transcript\n" + fixed + sealed).digest()
