"""Oblivious HTTP capsules (RFC 9458) and chunked ones (draft-ietf-ohai-chunked-ohttp-08).

A client seals a binary HTTP request to a gateway's key and sends it through a relay, which sees who asked and
not what; the gateway sees what and not who. One suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM,
which RFC 9458 itself uses and every peer has. What must outlive the next computers is sealed once more inside
(``quotary.client.sealed``). HPKE contexts with export come from ``pyhpke`` (RFC 9180).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from pyhpke import AEADId, CipherSuite, ContextInterface, KDFId, KEMId, KEMKey, KEMKeyPair, PyHPKEError

from quotary.errors import Malformed, Rejected, Unsupported
from quotary.oblivious.binary_http import Cut, Reader, varint

KEYS_TYPE = "application/ohttp-keys"
REQUEST_TYPE, RESPONSE_TYPE = "message/ohttp-req", "message/ohttp-res"
CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE = "message/ohttp-chunked-req", "message/ohttp-chunked-res"

KEM, KDF, AEAD = 0x0020, 0x0001, 0x0001
MAX_CHUNK = 16_384
KEY_LENGTH = 32
_TAG = 16
_NONCE = 16  # max(Nn, Nk) of AES-128-GCM
_HEADER = struct.Struct(">BHHH")
_CONFIG = struct.Struct(">BH32sHHH")
_FINAL = b"final"


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A gateway's public key (RFC 9458 section 3.1).

    key_id: 0 to 255, the gateway's own number; public: X25519, 32 bytes
    """

    key_id: int
    public: bytes

    def encode(self) -> bytes:
        return _CONFIG.pack(self.key_id, KEM, self.public, 4, KDF, AEAD)

    def encode_list(self) -> bytes:
        """Encode ``application/ohttp-keys`` with this one configuration."""
        data = self.encode()
        return struct.pack(">H", len(data)) + data


def parse_keys(data: bytes) -> tuple[KeyConfig, ...]:
    """Read ``application/ohttp-keys``: the configurations of the suite that is spoken here.

    One that is cut or has bytes left over condemns the whole list, as section 3.2 demands; one of another
    KEM is passed over.
    """
    found, at = [], 0
    while at < len(data):
        if at + 2 > len(data):
            raise Malformed("the list of gateway keys is cut")
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        item, at = data[at + 2 : end], end
        if at > len(data) or len(item) < 5:
            raise Malformed("the list of gateway keys is cut")
        config = _config(item)
        if config is not None:
            found.append(config)
    return tuple(found)


def _config(item: bytes) -> KeyConfig | None:
    if item[1:3] != KEM.to_bytes(2, "big"):
        return None
    algorithms = item[3 + KEY_LENGTH + 2 :]
    length = int.from_bytes(item[3 + KEY_LENGTH : 3 + KEY_LENGTH + 2], "big")
    if length != len(algorithms) or length < 4 or length % 4:
        raise Malformed("a gateway key has a list of algorithms of another length than it says")
    pairs = [algorithms[at : at + 4] for at in range(0, length, 4)]
    if struct.pack(">HH", KDF, AEAD) not in pairs:
        return None
    return KeyConfig(item[0], item[3 : 3 + KEY_LENGTH])


def seal(config: KeyConfig, request: bytes) -> tuple[bytes, "Answer"]:
    """Seal one binary HTTP request; returns the capsule and what opens its answer."""
    sealer = RequestSealer(config, _REQUEST_LABEL)
    wire = sealer.header + sealer.context.seal(request)
    return wire, Answer(sealer.context, sealer.header[_HEADER.size :])


_REQUEST_LABEL, _RESPONSE_LABEL = b"message/bhttp request", b"message/bhttp response"
_CHUNKED_REQUEST_LABEL = b"message/bhttp chunked request"
_CHUNKED_RESPONSE_LABEL = b"message/bhttp chunked response"


def seal_chunked(config: KeyConfig, request: bytes) -> tuple[bytes, "ChunkedAnswer"]:
    """Seal one binary HTTP request in chunks of at most ``MAX_CHUNK`` bytes."""
    sealer = RequestSealer(config, _CHUNKED_REQUEST_LABEL)
    pieces = [request[at : at + MAX_CHUNK] for at in range(0, len(request), MAX_CHUNK)] or [b""]
    wire = [sealer.header]
    for piece in pieces[:-1]:
        sealed = sealer.context.seal(piece)
        wire += (varint(len(sealed)), sealed)
    wire += (varint(0), sealer.context.seal(pieces[-1], _FINAL))
    return b"".join(wire), ChunkedAnswer(sealer.context, sealer.header[_HEADER.size :])


class RequestSealer:
    """The sender's end of one request: its header on the wire and its HPKE context.

    ephemeral: a fixed key pair instead of a fresh one, for the examples of RFC 9458 alone
    """

    __slots__ = ("context", "header")

    def __init__(self, config: KeyConfig, label: bytes, ephemeral: X25519PrivateKey | None = None) -> None:
        fixed = _HEADER.pack(config.key_id, KEM, KDF, AEAD)
        try:
            public = KEMKey.from_pyca_cryptography_key(X25519PublicKey.from_public_bytes(config.public))
            pair = None if ephemeral is None else _pair(ephemeral)
            enc, self.context = _suite().create_sender_context(public, label + b"\0" + fixed, eks=pair)
        except (PyHPKEError, ValueError) as error:
            raise Malformed("a gateway key is not an X25519 key") from error
        self.header = fixed + enc


class Answer:
    """Opens the answer to one sealed request."""

    __slots__ = ("_context", "_enc")

    def __init__(self, context: ContextInterface, enc: bytes) -> None:
        self._context, self._enc = context, enc

    def open(self, data: bytes) -> bytes:
        """Return the binary HTTP answer, or raise ``Rejected``."""
        if len(data) < _NONCE + _TAG:
            raise Malformed(f"an oblivious answer has {len(data)} bytes, at least {_NONCE + _TAG} are needed")
        key, nonce = _answer_key(self._context, self._enc, data[:_NONCE], _RESPONSE_LABEL)
        return _open(key, nonce, data[_NONCE:], b"")


class ChunkedAnswer:
    """Opens the chunks of the answer to one request while they arrive."""

    __slots__ = ("_buffer", "_chunks", "_context", "_enc", "_final")

    def __init__(self, context: ContextInterface, enc: bytes) -> None:
        self._context, self._enc = context, enc
        self._buffer = b""
        self._chunks: tuple[AESGCM, bytes, int] | None = None
        self._final = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire, return the plaintext of the chunks that they complete."""
        self._buffer += data
        if self._chunks is None:
            if len(self._buffer) < _NONCE:
                return b""
            nonce, self._buffer = self._buffer[:_NONCE], self._buffer[_NONCE:]
            key, base = _answer_key(self._context, self._enc, nonce, _CHUNKED_RESPONSE_LABEL)
            self._chunks = key, base, 0
        return b"".join(self._complete())

    def close(self) -> bytes:
        """Say that nothing more comes: returns the final chunk, or raises where the answer was cut."""
        if not self._final or self._chunks is None:
            raise Malformed("an oblivious answer was cut before its final chunk")
        return self._next(self._buffer, _FINAL)

    def _complete(self) -> Iterator[bytes]:
        while not self._final:
            reader = Reader(self._buffer)
            try:
                length = reader.varint()
                if length > MAX_CHUNK + _TAG:
                    raise Malformed(f"an oblivious answer has a chunk of {length} bytes")
                sealed = reader.take(length)
            except Cut:
                return
            self._buffer = reader.rest()
            if length == 0:
                self._final = True
            else:
                yield self._next(sealed, b"")
        if len(self._buffer) > MAX_CHUNK + _TAG:
            raise Malformed("an oblivious answer has a final chunk that is too long")

    def _next(self, sealed: bytes, associated: bytes) -> bytes:
        assert self._chunks is not None
        key, base, counter = self._chunks
        self._chunks = key, base, counter + 1
        return _open(key, _at(base, counter), sealed, associated)


class GatewayKey:
    """A gateway's private key; it lives in memory only and ends with its keyset."""

    __slots__ = ("_key", "config")

    def __init__(self, key_id: int, private: X25519PrivateKey | None = None) -> None:
        private = private or X25519PrivateKey.generate()
        self._key = KEMKey.from_pyca_cryptography_key(private)
        self.config = KeyConfig(key_id, private.public_key().public_bytes_raw())

    def open(self, wire: bytes) -> tuple[bytes, "Sealer"]:
        """Open a capsule: the binary HTTP request, and what seals its answer."""
        context, enc, sealed = self._begin(wire, _REQUEST_LABEL)
        return _open_next(context, sealed, b""), Sealer(context, enc)

    def open_chunked(self, wire: bytes) -> tuple[bytes, "ChunkedSealing"]:
        """Open a whole chunked request; its end must be authenticated."""
        context, enc, rest = self._begin(wire, _CHUNKED_REQUEST_LABEL)
        reader, pieces = Reader(rest), []
        while length := reader.varint():
            pieces.append(_open_next(context, reader.take(length), b""))
        pieces.append(_open_next(context, reader.rest(), _FINAL))
        return b"".join(pieces), ChunkedSealing(context, enc)

    def _begin(self, wire: bytes, label: bytes) -> tuple[ContextInterface, bytes, bytes]:
        if len(wire) < _HEADER.size + KEY_LENGTH + _TAG:
            raise Malformed(f"an oblivious request has {len(wire)} bytes")
        key_id, *suite = _HEADER.unpack_from(wire)
        if suite != [KEM, KDF, AEAD]:
            raise Unsupported(f"oblivious HTTP with the algorithms {suite}")
        if key_id != self.config.key_id:
            raise Rejected("gateway key", str(key_id), str(self.config.key_id))
        fixed, enc = wire[: _HEADER.size], wire[_HEADER.size : _HEADER.size + KEY_LENGTH]
        try:
            context = _suite().create_recipient_context(enc, self._key, label + b"\0" + fixed)
        except (PyHPKEError, ValueError):
            raise Rejected("oblivious request", "one that does not open", "one to this key") from None
        return context, enc, wire[_HEADER.size + KEY_LENGTH :]


class Sealer:
    """Seals the one answer to a request."""

    __slots__ = ("_context", "_enc")

    def __init__(self, context: ContextInterface, enc: bytes) -> None:
        self._context, self._enc = context, enc

    def seal(self, response: bytes, nonce: bytes | None = None) -> bytes:
        """Seal a binary HTTP answer; ``nonce`` (16 bytes) is for the examples of RFC 9458 alone."""
        nonce = nonce or os.urandom(_NONCE)
        key, iv = _answer_key(self._context, self._enc, nonce, _RESPONSE_LABEL)
        return nonce + key.encrypt(iv, response, b"")


class ChunkedSealing:
    """Seals the one answer to a chunked request piece by piece: ``start``, ``data`` ..., ``end``."""

    __slots__ = ("_base", "_counter", "_key", "_nonce")

    def __init__(self, context: ContextInterface, enc: bytes) -> None:
        self._nonce = os.urandom(_NONCE)
        self._key, self._base = _answer_key(context, enc, self._nonce, _CHUNKED_RESPONSE_LABEL)
        self._counter = 0

    def start(self) -> bytes:
        return self._nonce

    def data(self, data: bytes) -> bytes:
        wire: list[bytes] = []
        for at in range(0, len(data), MAX_CHUNK):
            sealed = self._seal(data[at : at + MAX_CHUNK], b"")
            wire += (varint(len(sealed)), sealed)
        return b"".join(wire)

    def end(self, data: bytes = b"") -> bytes:
        return varint(0) + self._seal(data, _FINAL)

    def _seal(self, data: bytes, associated: bytes) -> bytes:
        nonce = _at(self._base, self._counter)
        self._counter += 1
        return self._key.encrypt(nonce, data, associated)


@cache
def _suite() -> CipherSuite:
    return CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES128_GCM)


def _pair(private: X25519PrivateKey) -> KEMKeyPair:
    return KEMKeyPair(
        KEMKey.from_pyca_cryptography_key(private),
        KEMKey.from_pyca_cryptography_key(private.public_key()),
    )


def _answer_key(context: ContextInterface, enc: bytes, nonce: bytes, label: bytes) -> tuple[AESGCM, bytes]:
    secret = context.export(label, _NONCE)
    prk = HKDF.extract(hashes.SHA256(), enc + nonce, secret)
    key = HKDFExpand(hashes.SHA256(), 16, b"key").derive(prk)
    return AESGCM(key), HKDFExpand(hashes.SHA256(), 12, b"nonce").derive(prk)


def _at(base: bytes, counter: int) -> bytes:
    return (int.from_bytes(base, "big") ^ counter).to_bytes(len(base), "big")


def _open(key: AESGCM, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    try:
        return key.decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise Rejected("oblivious answer", "one that does not open", "the gateway's, whole") from None


def _open_next(context: ContextInterface, sealed: bytes, associated: bytes) -> bytes:
    try:
        return context.open(sealed, associated)
    except PyHPKEError:
        raise Rejected("oblivious request", "one that does not open", "one to this key, whole") from None
