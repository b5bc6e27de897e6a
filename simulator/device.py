"""The protocol by which an enclave asks its device for evidence: ``docs/formats/tee-device.md``.

A frame is a u32 (big endian) length and that many bytes of canonical JSON. A request names 64 bytes of report
data, or nonces for GPUs and switches, and nothing else: there is no member for a register, so no caller can
choose one. The same frames travel over the socket that a measured process inherits and over a guest's
virtio-serial port.
"""

import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quotary.canonical import Fields, b64, canonical, hexbytes, parse_canonical
from quotary.errors import Malformed, QuotaryError, Refused

MAX_REQUEST = 8192
MAX_DEVICES = 64
REPORT_DATA_LENGTH, NONCE_LENGTH = 64, 32

log = logging.getLogger(__name__)


class Channel(Protocol):
    """A byte stream to whoever asks; ``receive`` gives no bytes at its end, and refuses a stranger's."""

    def receive(self, limit: int) -> bytes: ...

    def send(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quote and the vendor's documents that a verifier needs beside it."""

    quote: bytes
    collateral: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """What GPUs and switches show, what NVIDIA publishes about them, and the mode that their driver is in."""

    devices: bytes
    collateral: Mapping[str, str]
    mode: str


class Machine(Protocol):
    """What requests are about; either call may raise a ``QuotaryError``, which is sent as an error."""

    def quote(self, report_data: bytes) -> Evidence: ...

    def show(self, nonces: Sequence[bytes]) -> DeviceEvidence: ...


def serve(channel: Channel, machine: Machine) -> None:
    """Answer requests until the other side ends, or breaks the framing."""
    while (request := read_frame(channel)) is not None:
        try:
            reply = _answer(request, machine)
        except QuotaryError as error:
            log.warning("device.refused", extra={"reason": str(error)})
            reply = encode_error(error)
        channel.send(struct.pack(">I", len(reply)) + reply)


def read_frame(channel: Channel) -> bytes | None:
    """Read one frame, or None where the stream ends between frames."""
    head = _exactly(channel, 4)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if length > MAX_REQUEST:
        raise Malformed(f"request has {length} bytes, at most {MAX_REQUEST} are allowed")
    body = _exactly(channel, length)
    if len(head) != 4 or len(body) != length:
        raise Malformed("the stream ended inside a frame")
    return body


def parse_request(data: bytes) -> bytes | tuple[bytes, ...]:
    """Read the report data, 64 bytes, of a request for a quote, or the nonces of one for devices.

    Any other member or operation is ``Malformed``.
    """
    request = Fields(parse_canonical(data, MAX_REQUEST), "device request")
    found: bytes | tuple[bytes, ...]
    if request.choice("op", "quote", "devices") == "quote":
        found = request.hexbytes("report_data", REPORT_DATA_LENGTH)
    else:
        texts = request.items("nonces", MAX_DEVICES, low=1)
        found = tuple(hexbytes(text if isinstance(text, str) else "", NONCE_LENGTH) for text in texts)
    request.done()
    return found


def encode_reply(evidence: Evidence) -> bytes:
    """Write ``{"collateral": {…}, "quote": base64}``."""
    reply = {"quote": b64(evidence.quote), "collateral": dict(evidence.collateral)}
    return canonical(reply, multiline=True)


def encode_devices(evidence: DeviceEvidence) -> bytes:
    """Write ``{"collateral": {…}, "devices": base64, "mode": …}``; collateral is base64 of text."""
    collateral = {name: b64(text.encode()) for name, text in evidence.collateral.items()}
    return canonical({"devices": b64(evidence.devices), "collateral": collateral, "mode": evidence.mode})


def encode_error(error: QuotaryError) -> bytes:
    """Write ``{"error": {"kind": "malformed" | "refused" | "failed", "message": …}}``."""
    kind = (
        "malformed" if isinstance(error, Malformed) else "refused" if isinstance(error, Refused) else "failed"
    )
    return canonical({"error": {"kind": kind, "message": str(error)}})


def _answer(request: bytes, machine: Machine) -> bytes:
    asked = parse_request(request)
    if isinstance(asked, bytes):
        return encode_reply(machine.quote(asked))
    return encode_devices(machine.show(asked))


def _exactly(channel: Channel, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = channel.receive(length - len(data))
        if not part:
            break
        data += part
    return data
