"""Authenticated frames with an authenticated end: the body layer of the sealed channel
(docs/formats/sealed.md).

One direction of one exchange has one key and one counter. A frame on the wire is ``u32 length |
ciphertext`` (AES-256-GCM), its plaintext ``u8 flags | u32 n | n bytes of data | zero padding``, so that
the frame on the wire is a whole number of buckets. Nonce = base XOR counter; associated data = direction,
length and counter, so that a frame holds only in its place. The final flag is inside the ciphertext: hidden
from whoever watches, and an end that nobody but the sender can make.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quotary.errors import CannotTell, Malformed, Rejected

FINAL = 0x01
RECEIPT = 0x02
BUCKETS = (256, 320, 1024, 4096, 16384)
MAX_DATA = 32_743  # with what stands around it 32 KiB
REQUEST, RESPONSE = b"request", b"response"

_TAG = 16
_HEAD = struct.Struct(">BI")
_LENGTH = struct.Struct(">I")
# What a frame has on the wire besides its data.
OVERHEAD = _LENGTH.size + _TAG + _HEAD.size
_MAX_CIPHERTEXT = MAX_DATA + BUCKETS[-1] + _TAG
_MAX_COUNTER = 2**32


class StreamTruncated(CannotTell):
    """The stream ended before its authenticated end: what arrived is genuine, and it is not all of it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One opened frame. final: nothing follows; receipt: ``data`` is a signed receipt and no part of the
    body.
    """

    data: bytes
    final: bool
    receipt: bool


@dataclass(frozen=True, slots=True)
class DirectionKey:
    """The secrets of one direction: a 32-byte AES key, a 12-byte nonce base, and the direction's name."""

    key: bytes
    base: bytes
    direction: bytes

    def nonce(self, counter: int) -> bytes:
        return (int.from_bytes(self.base, "big") ^ counter).to_bytes(12, "big")

    def associated(self, length: int, counter: int) -> bytes:
        return self.direction + struct.pack(">IQ", length, counter)


class FrameSealer:
    """Seals one direction, frame after frame, each a whole number of ``bucket`` bytes on the wire.

    chain: SHA-256 over the frames so far, ``c[i] = SHA-256(c[i-1] | frame i)``, starting at 32 bytes that
           the caller names
    frames: how many frames the chain covers
    """

    __slots__ = ("_aead", "_bucket", "_ended", "_keys", "chain", "frames")

    def __init__(self, keys: DirectionKey, bucket: int, chain: bytes) -> None:
        if bucket not in BUCKETS:
            raise Malformed(f"padding bucket of {bucket} bytes, allowed are {', '.join(map(str, BUCKETS))}")
        self._keys, self._bucket = keys, bucket
        self._aead = AESGCM(keys.key)
        self._ended = False
        self.chain, self.frames = chain, 0

    @property
    def room(self) -> int:
        """Bytes of data that a frame of one bucket holds."""
        return self._bucket - OVERHEAD

    def seal(self, data: bytes, *, final: bool = False, receipt: bool = False, least: int = 0) -> bytes:
        """Seal at most ``MAX_DATA`` bytes as the next frame; after the final one there is no next.

        least: the frame is as long as one with so many bytes of data would be
        """
        assert not self._ended
        assert len(data) <= MAX_DATA
        assert self.frames < _MAX_COUNTER
        flags = (FINAL if final else 0) | (RECEIPT if receipt else 0)
        plaintext = pad(flags, data, self._bucket, _LENGTH.size + _TAG, least)
        length = len(plaintext) + _TAG
        aad = self._keys.associated(length, self.frames)
        frame = _LENGTH.pack(length) + self._aead.encrypt(self._keys.nonce(self.frames), plaintext, aad)
        self.chain = hashlib.sha256(self.chain + frame).digest()
        self.frames += 1
        self._ended = final
        return frame

    def seal_all(self, data: bytes) -> Iterator[bytes]:
        """Seal any number of bytes as frames, the last of them final."""
        pieces = [data[at : at + MAX_DATA] for at in range(0, len(data), MAX_DATA)] or [b""]
        for number, piece in enumerate(pieces, 1):
            yield self.seal(piece, final=number == len(pieces))


class FrameOpener:
    """Opens one direction from arriving bytes, in whatever pieces they come.

    chains: the chain value after each frame, so ``chains[n - 1]`` is what a receipt over ``n`` frames must
            state
    """

    __slots__ = ("_aead", "_buffer", "_dead", "_keys", "chains", "ended")

    def __init__(self, keys: DirectionKey, chain: bytes) -> None:
        self._keys = keys
        self._aead = AESGCM(keys.key)
        self._buffer = bytearray()
        self._dead = False
        self.ended = False
        self.chains: list[bytes] = [chain]

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes from the wire and return the frames they complete.

        Raises ``Rejected`` for a frame that is not the next one the sender sealed, ``Malformed`` for a
        layout no sender makes and for bytes after the end. After either, the stream stays dead.
        """
        if self._dead:
            raise Malformed("the stream was given up at an earlier frame")
        self._buffer += data
        self._dead = True
        frames = list(self._complete())
        if self.ended and self._buffer:
            raise Malformed(f"{len(self._buffer)} bytes after the final frame")
        self._dead = False
        return frames

    def close(self) -> None:
        """Say that no more bytes will come; ``StreamTruncated`` unless the authenticated end was
        among them.
        """
        if not self.ended:
            raise StreamTruncated(
                f"stream truncated after {len(self.chains) - 1} whole frames: no final frame"
            )

    def _complete(self) -> Iterator[Frame]:
        while not self.ended and len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not _TAG + _HEAD.size <= length <= _MAX_CIPHERTEXT:
                raise Malformed(f"frame of {length} bytes, allowed are 21 to {_MAX_CIPHERTEXT}")
            if len(self._buffer) < _LENGTH.size + length:
                return
            wire = bytes(self._buffer[: _LENGTH.size + length])
            del self._buffer[: len(wire)]
            yield self._open(wire)

    def _open(self, wire: bytes) -> Frame:
        counter = len(self.chains) - 1
        ciphertext = wire[_LENGTH.size :]
        aad = self._keys.associated(len(ciphertext), counter)
        try:
            plaintext = self._aead.decrypt(self._keys.nonce(counter), ciphertext, aad)
        except InvalidTag:
            raise Rejected(
                "sealed frame", f"frame {counter} does not open", "the sender's next frame"
            ) from None
        flags, data = unpad(plaintext)
        self.chains.append(hashlib.sha256(self.chains[-1] + wire).digest())
        self.ended = bool(flags & FINAL)
        return Frame(data, self.ended, bool(flags & RECEIPT))


def bucket_for(length: int) -> int:
    """Give the smallest bucket in which so many bytes of data are one frame; else the smallest there is."""
    return next((bucket for bucket in BUCKETS if length <= bucket - OVERHEAD), BUCKETS[0])


def pad(flags: int, data: bytes, bucket: int, around: int = 0, least: int = 0) -> bytes:
    """Lay out ``flags | length | data | zeros``: whole buckets with ``around`` bytes more."""
    whole = -(-(around + _HEAD.size + max(len(data), least)) // bucket) * bucket
    return (_HEAD.pack(flags, len(data)) + data).ljust(whole - around, b"\0")


def unpad(plaintext: bytes) -> tuple[int, bytes]:
    """Read what ``pad`` wrote: the flags and the data. Unknown flags and padding that is not zero are
    refused.
    """
    if len(plaintext) < _HEAD.size:
        raise Malformed(f"frame plaintext of {len(plaintext)} bytes, at least {_HEAD.size} are needed")
    flags, length = _HEAD.unpack_from(plaintext)
    end = _HEAD.size + length
    if flags & ~(FINAL | RECEIPT) or end > len(plaintext) or any(plaintext[end:]):
        raise Malformed("frame plaintext has unknown flags, too few bytes or padding that is not zero")
    return flags, plaintext[_HEAD.size : end]
