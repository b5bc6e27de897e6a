"""The native sealed channel, both ends of the wire (docs/formats/sealed.md; design section 7).

A request is a fixed header, one HPKE single-shot message (RFC 9180 base mode; X-Wing, HKDF-SHA256,
AES-256-GCM) that holds a small *head*, and frames that hold the body under a key from the head. The head
binds method, path and inner headers, brings the secret from which the response is sealed, and names the
smallest log the client has seen. A proxy that ends TLS sees lengths in buckets and nothing else. No socket
and no clock here: the caller passes bytes and ``now``.

The key comes from an attested keyset and ``info`` carries that keyset's digest, so a request opens only
where the keyset is the one the client judged.
"""

import hashlib
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.client import frames
from quotary.client.frames import BUCKETS, MAX_DATA, REQUEST, RESPONSE, DirectionKey, FrameOpener, FrameSealer
from quotary.errors import Malformed, Refused, Rejected

MEDIA_TYPE = "application/quotary-sealed"
VERSION = 1
KEY_LENGTH = 1184 + 32
MAX_HEAD = 16_384
ENC_LENGTH = KEM.MLKEM768_X25519.enc_length()

_FIXED = struct.Struct(">BHHH8sH")
_SUITE = (0x647A, 0x0001, 0x0002)
_OVERHEAD = ENC_LENGTH + 16
_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LABEL = b"quotary-sealed/v1 "
_PATH = re.compile(r"/[!-~]{0,1023}")
_HEADER = re.compile(r"[a-z0-9-]{1,64}")
_NONCE_LENGTH = 32


class UnknownKey(Refused):
    """The request is sealed to a key that this keyset does not (or no longer) have; fetch the keyset
    again.
    """


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says besides its body.

    at:            the client's clock, seconds since 1970
    min_log_size:  an enclave whose verified log is smaller must answer 412
    want:          receipt algorithms the client reads, e.g. ``("ed25519",)``; empty for no receipt in the
                   stream
    pad:           bucket in bytes for every frame of both directions
    """

    method: str
    path: str
    headers: Mapping[str, str]
    at: int
    min_log_size: int
    want: tuple[str, ...]
    pad: int
    client_nonce: bytes
    request_key: bytes
    response_secret: bytes

    @classmethod
    def new(
        cls, method: str, path: str, *, at: int, min_log_size: int, headers: Mapping[str, str] | None = None,
        want: tuple[str, ...] = ("ed25519",), pad: int = BUCKETS[0],
    ) -> "Head":  # fmt: skip
        """Make a head with fresh secrets."""
        secrets = (os.urandom(32) for _ in range(3))
        return cls(method, path, dict(headers or {}), at, min_log_size, want, pad, *secrets)

    @classmethod
    def parse(cls, data: bytes) -> "Head":
        fields = Fields(parse_canonical(data, MAX_HEAD), "sealed head")
        head = cls(
            method=fields.choice("method", "GET", "POST"),
            path=fields.text("path", 1024),
            headers=_headers(fields.mapping("headers", 32)),
            at=fields.integer("ts"),
            min_log_size=fields.integer("min_log_size"),
            want=tuple(_text(item) for item in fields.items("want", 8)),
            pad=fields.integer("pad"),
            client_nonce=fields.base64("client_nonce", length=32),
            request_key=fields.base64("req_key", length=32),
            response_secret=fields.base64("resp_secret", length=32),
        )
        fields.done()
        if _PATH.fullmatch(head.path) is None or head.pad not in BUCKETS:
            raise Malformed("sealed head has a path or a padding bucket that is not allowed")
        return head

    def encode(self) -> bytes:
        return canonical(
            {
                "method": self.method, "path": self.path, "headers": dict(self.headers), "ts": self.at,
                "min_log_size": self.min_log_size, "want": list(self.want), "pad": self.pad,
                "client_nonce": b64(self.client_nonce), "req_key": b64(self.request_key),
                "resp_secret": b64(self.response_secret),
            }
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Frame 0 of a response: the inner status and headers, which no proxy can change."""

    status: int
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes) -> "ResponseHead":
        fields = Fields(parse_canonical(data, MAX_HEAD), "response head")
        found = cls(fields.integer("status", 200, 599), _headers(fields.mapping("headers", 32)))
        fields.done()
        return found

    def encode(self) -> bytes:
        return canonical({"status": self.status, "headers": dict(self.headers)})


class PrivateKey:
    """An X-Wing key pair for the channel; it lives in memory only and is dropped with its keyset."""

    __slots__ = ("_key", "public")

    def __init__(self) -> None:
        kem, curve = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        self._key = MLKEM768X25519PrivateKey(kem, curve)
        self.public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        try:
            return _HPKE.decrypt(sealed, self._key, info=info)
        except (InvalidTag, ValueError):
            raise Rejected("sealed head", "a head that does not open", "one sealed to this keyset") from None


def key_id(public: bytes) -> bytes:
    """The 8 bytes that name a channel key on the wire: the start of SHA-256 over its 1216 bytes."""
    return hashlib.sha256(public).digest()[:8]


def seal_request(
    head: Head, body: bytes, public: bytes, keyset_digest: bytes
) -> tuple[bytes, "ResponseOpener"]:
    """Seal a request to a channel key (1216 bytes) of the keyset with this digest (32 bytes).

    Returns the bytes to POST and the opener for whatever comes back.
    """
    plaintext = frames.pad(0, head.encode(), BUCKETS[0])
    fixed = _FIXED.pack(VERSION, *_SUITE, key_id(public), len(plaintext) + _OVERHEAD)
    sealed = encrypt(public, plaintext, _info(fixed, keyset_digest))
    transcript = _transcript(fixed, sealed)
    wire = fixed + sealed + seal_body(head, transcript, body)
    return wire, ResponseOpener(head, transcript, wire)


def encrypt(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal bytes to an X-Wing key: ``enc`` and ciphertext of one HPKE message."""
    if len(public) != KEY_LENGTH:
        raise Malformed(f"channel key has {len(public)} bytes, X-Wing needs {KEY_LENGTH}")
    try:
        kem = MLKEM768PublicKey.from_public_bytes(public[:1184])
    except ValueError as error:
        raise Malformed("channel key is not an X-Wing key") from error
    key = MLKEM768X25519PublicKey(kem, X25519PublicKey.from_public_bytes(public[1184:]))
    return _HPKE.encrypt(plaintext, key, info=info)


def seal_body(head: Head, transcript: bytes, body: bytes) -> bytes:
    """Seal the body that belongs to a head, as frames whose last is final."""
    keys = _derive(head.request_key, transcript, REQUEST)
    return b"".join(FrameSealer(keys, head.pad, transcript).seal_all(body))


def open_body(head: Head, transcript: bytes, rest: bytes) -> bytes:
    """Open the whole body that belongs to a head."""
    opener = FrameOpener(_derive(head.request_key, transcript, REQUEST), transcript)
    found = opener.feed(rest)
    opener.close()
    if any(frame.receipt for frame in found):
        raise Malformed("a request holds a receipt frame")
    return b"".join(frame.data for frame in found)


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request as the enclave reads it. wire_digest: SHA-256 of the bytes as posted; transcript: of header
    and enc.
    """

    head: Head
    body: bytes
    enc: bytes
    wire_digest: bytes
    transcript: bytes

    def respond(self) -> "ResponseSealer":
        """Start the one response to this request."""
        return ResponseSealer(self, os.urandom(_NONCE_LENGTH))


def sealed_key_id(wire: bytes) -> bytes:
    """Read which key a request is sealed to, so that the caller can choose; proves nothing."""
    return _split(wire)[1]


def open_request(wire: bytes, key: PrivateKey, keyset_digest: bytes) -> OpenedRequest:
    """Open a whole request. ``UnknownKey``, ``Rejected``, ``Malformed`` and ``StreamTruncated`` say what is
    wrong.

    The caller still has to refuse a second ``enc`` (``enclave.replay``) before it acts on the body.
    """
    fixed, named, sealed, rest = _split(wire)
    if named != key_id(key.public):
        raise UnknownKey("channel key", named.hex(), key_id(key.public).hex())
    flags, encoded = frames.unpad(key.open(sealed, _info(fixed, keyset_digest)))
    if flags:
        raise Malformed("sealed head has frame flags")
    head = Head.parse(encoded)
    transcript = _transcript(fixed, sealed)
    body = open_body(head, transcript, rest)
    return OpenedRequest(head, body, sealed[:ENC_LENGTH], hashlib.sha256(wire).digest(), transcript)


class ResponseSealer:
    """Seals one response: ``start`` once, ``data`` as often as needed, ``end`` once.

    chain, frames: what a receipt states about the frames sent so far (the frame that carries the receipt is
                   not covered)
    """

    __slots__ = ("_frames", "_nonce")

    def __init__(self, request: OpenedRequest, nonce: bytes) -> None:
        self._nonce = nonce
        keys = _derive(request.head.response_secret, request.transcript + nonce, RESPONSE)
        self._frames = FrameSealer(keys, request.head.pad, _chain_start(request.wire_digest, nonce))

    @property
    def chain(self) -> bytes:
        return self._frames.chain

    @property
    def frames(self) -> int:
        return self._frames.frames

    def start(self, head: ResponseHead) -> bytes:
        assert self._frames.frames == 0
        return bytes([VERSION]) + self._nonce + self._frames.seal(head.encode())

    def data(self, data: bytes) -> bytes:
        """Seal body bytes, in as many frames as they need; they are sent at once and so are padded one by
        one.
        """
        assert self._frames.frames > 0
        return b"".join(self._frames.seal(data[at : at + MAX_DATA]) for at in range(0, len(data), MAX_DATA))

    @property
    def room(self) -> int:
        """Bytes that ``one`` takes."""
        return self._frames.room

    def one(self, data: bytes) -> bytes:
        """Seal one frame of one bucket, with at most ``room`` bytes of the body or none."""
        assert self._frames.frames > 0
        assert len(data) <= self.room
        return self._frames.seal(data)

    def end(self, receipt: bytes = b"", least: int = 0) -> bytes:
        """Seal the authenticated end, with the receipt where there is one, in the room of ``least`` bytes."""
        return self._frames.seal(receipt, final=True, receipt=bool(receipt), least=least)


class ResponseOpener:
    """Opens the response to one request from arriving bytes.

    request, transcript: what this is the answer to
    head:    status and inner headers, once frame 0 has arrived
    receipt: bytes of the receipt, once the end has arrived and if it carried one
    """

    __slots__ = ("_buffer", "_opener", "head", "receipt", "request", "transcript", "wire_digest")

    def __init__(self, request: Head, transcript: bytes, wire: bytes) -> None:
        self.request, self.transcript = request, transcript
        self.wire_digest = hashlib.sha256(wire).digest()
        self._buffer = b""
        self._opener: FrameOpener | None = None
        self.head: ResponseHead | None = None
        self.receipt: bytes | None = None

    @property
    def ended(self) -> bool:
        return self._opener is not None and self._opener.ended

    @property
    def chains(self) -> list[bytes]:
        """The chain value after 0, 1, 2 ... frames; ``receipt.response.chain`` must equal the one at its
        ``frames``.
        """
        return [] if self._opener is None else self._opener.chains

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire, return the body bytes they complete; errors as ``FrameOpener.feed``."""
        if self._opener is None:
            self._buffer += data
            if self._buffer and self._buffer[0] != VERSION:
                raise Malformed(f"sealed response of version {self._buffer[0]}, this is version {VERSION}")
            if len(self._buffer) < 1 + _NONCE_LENGTH:
                return b""
            nonce, data = self._buffer[1 : 1 + _NONCE_LENGTH], self._buffer[1 + _NONCE_LENGTH :]
            keys = _derive(self.request.response_secret, self.transcript + nonce, RESPONSE)
            self._opener = FrameOpener(keys, _chain_start(self.wire_digest, nonce))
        return b"".join(map(self._take, self._opener.feed(data)))

    def close(self) -> None:
        """Say that the connection ended; ``StreamTruncated`` unless the authenticated end was seen."""
        if self._opener is None:
            raise frames.StreamTruncated("stream truncated before its first frame")
        self._opener.close()

    def _take(self, frame: frames.Frame) -> bytes:
        if self.head is None:
            if frame.final or frame.receipt:
                raise Malformed("the first frame of a response is not its head")
            self.head = ResponseHead.parse(frame.data)
            return b""
        if frame.receipt != (frame.final and bool(frame.data)):
            raise Malformed("a receipt stands in the final frame, and the final frame holds nothing else")
        if not frame.receipt:
            return frame.data
        self.receipt = frame.data
        return b""


def _split(wire: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    if len(wire) < _FIXED.size:
        raise frames.StreamTruncated(f"stream truncated in its fixed header: {len(wire)} bytes")
    fixed = wire[: _FIXED.size]
    version, kem, kdf, aead, named, length = _FIXED.unpack(fixed)
    if version != VERSION or (kem, kdf, aead) != _SUITE:
        raise Malformed(
            f"sealed request of version {version}, suite {kem:#06x} {kdf} {aead}; this is 1, 0x647a 1 2"
        )
    if not _OVERHEAD < length <= _OVERHEAD + MAX_HEAD:
        raise Malformed(f"sealed head of {length} bytes, at most {_OVERHEAD + MAX_HEAD} are allowed")
    if len(wire) < _FIXED.size + length:
        raise frames.StreamTruncated(f"stream truncated in its head: {len(wire)} bytes")
    return fixed, named, wire[_FIXED.size : _FIXED.size + length], wire[_FIXED.size + length :]


def _info(fixed: bytes, keyset_digest: bytes) -> bytes:
    assert len(keyset_digest) == 32
    return _LABEL + b"head\n" + hashlib.sha256(fixed).digest() + keyset_digest


def _transcript(fixed: bytes, sealed: bytes) -> bytes:
    return hashlib.sha256(_LABEL + b"transcript\n" + fixed + sealed).digest()


def _chain_start(wire_digest: bytes, nonce: bytes) -> bytes:
    return hashlib.sha256(_LABEL + b"chain\n" + wire_digest + nonce).digest()


def _derive(secret: bytes, salt: bytes, direction: bytes) -> DirectionKey:
    found = HKDF(hashes.SHA256(), 44, salt=salt, info=_LABEL + direction).derive(secret)
    return DirectionKey(found[:32], found[32:], direction)


def _headers(found: Mapping[str, object]) -> dict[str, str]:
    headers = {name: _text(value) for name, value in found.items()}
    if any(_HEADER.fullmatch(name) is None for name in headers):
        raise Malformed("a header name is not of the characters a-z 0-9 -")
    return headers


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 8192:
        raise Malformed("a value that must be a string of at most 8192 characters is not")
    return value
