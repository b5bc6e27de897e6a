"""The only hardware access: asking the TEE device for evidence over 64 bytes of our choice
(docs/formats/tee-device.md).

A simulator's device is named on the measured command line: ``fd:N`` is a stream that the process inherited,
``virtio:NAME`` a guest's virtio-serial port; ``enclave.hardware`` has the real ones. A frame is a u32 (big
endian) length and canonical JSON. What comes back is bytes that nobody believes yet: the enclave verifies its
own evidence like anybody else's.
"""

import errno
import fcntl
import os
import re
import select
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from enclave.nvml import CONFIDENTIAL
from quotary.canonical import Fields, canonical, parse_canonical
from quotary.errors import CannotTell, Malformed, Refused, Usage

MAX_REPLY = 4 << 20
TIMEOUT_SECONDS = 30.0
PORTS = Path("/dev/virtio-ports")

T = TypeVar("T")

_NAME = re.compile(r"(fd):([0-9]{1,6})|(virtio):([a-z0-9.-]{1,64})")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quote and the vendor's documents by name, as text; neither is believed yet.

    event_log: of the machine's boot, where it has one to show
    """

    quote: bytes
    collateral: Mapping[str, str]
    event_log: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """What GPUs and switches show, as NVIDIA's list, and its documents by name; neither is believed yet."""

    devices: bytes
    collateral: Mapping[str, str]


class Device(Protocol):
    """Whatever gives evidence."""

    def quote(self, report_data: bytes) -> Evidence:
        """Give evidence over exactly these 64 bytes; ``CannotTell`` where the device does not answer."""
        ...

    def devices(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        """Give the evidence of the machine's GPUs and switches, each over the 32 bytes of its place.

        Raises ``Refused`` (check ``confidential mode``) where the driver says that the host can look in.
        """
        ...


class StreamDevice:
    """A device behind a byte stream; one request at a time, from any thread."""

    def __init__(self, descriptor: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._descriptor = descriptor
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._broken = ""

    def quote(self, report_data: bytes) -> Evidence:
        if len(report_data) != 64:
            raise Malformed(f"report data has {len(report_data)} bytes, 64 are needed")
        return self._ask({"op": "quote", "report_data": report_data.hex()}, _parse_reply)

    def devices(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        return self._ask({"op": "devices", "nonces": [nonce.hex() for nonce in nonces]}, _parse_devices)

    def _ask(self, question: Mapping[str, object], parse: Callable[[bytes], T]) -> T:
        request = canonical(question)
        with self._lock:
            if self._broken:
                # An answer that comes late would be taken for the next one.
                raise CannotTell(f"the TEE device was given up: {self._broken}")
            try:
                return parse(self._exchange(struct.pack(">I", len(request)) + request))
            except (OSError, CannotTell, Malformed) as error:
                self._broken = str(error)
                raise CannotTell(f"the TEE device does not answer: {error}") from error

    def _exchange(self, request: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout_seconds
        while request:
            self._wait(deadline, write=True)
            request = request[os.write(self._descriptor, request) :]
        (length,) = struct.unpack(">I", self._exactly(4, deadline))
        if length > MAX_REPLY:
            raise Malformed(f"reply has {length} bytes, at most {MAX_REPLY} are allowed")
        return self._exactly(length, deadline)

    def _exactly(self, length: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait(deadline, write=False)
            part = os.read(self._descriptor, min(length - len(data), 1 << 16))
            if not part:
                raise CannotTell(f"its stream ended after {len(data)} of {length} bytes")
            data += part
        return bytes(data)

    def _wait(self, deadline: float, *, write: bool) -> None:
        watched = [self._descriptor]
        left = max(0.0, deadline - time.monotonic())
        ready = select.select([] if write else watched, watched if write else [], [], left)
        if not any(ready):
            raise CannotTell(f"nothing within {self._timeout_seconds:g} s")


class LinuxKernel:
    """The real ``Kernel`` of ``enclave.collect``."""

    def create(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)

    def remove(self, folder: Path) -> None:
        folder.rmdir()

    def write(self, file: Path, data: bytes) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # One write is one value here; a shorter one would be another value.
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "took only a part of what was written")
        finally:
            os.close(descriptor)

    def read(self, file: Path, limit: int) -> bytes:
        with file.open("rb", buffering=0) as stream:
            data = b"".join(iter(lambda: stream.read(1 << 16), b""))
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"has {len(data)} bytes, at most {limit} were expected")
        return data

    def control(self, device: Path, request: int, argument: bytearray) -> None:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, request, argument, True)
        finally:
            os.close(descriptor)


def require_confidential(mode: str) -> None:
    """Refuse GPUs whose memory the host can read: confidential computing off, or open to developer tools.

    No signed field of their evidence says so; it is the word of the driver, which is measured.
    """
    if mode not in CONFIDENTIAL:
        raise Refused("confidential mode", mode, " or ".join(sorted(CONFIDENTIAL)))


def open_device(name: str) -> StreamDevice:
    """Open the device that the command line names: ``fd:N`` or ``virtio:NAME``."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise Usage(
            f"no TEE device is named {name!r}",
            next_command="--tee tdx, snp, nitro or auto; fd:N or virtio:NAME",
        )
    try:
        if match[1]:
            os.fstat(int(match[2]))
            return StreamDevice(int(match[2]))
        return StreamDevice(os.open(PORTS / match[4], os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise CannotTell(f"the TEE device {name} cannot be opened: {error.strerror}") from error


def _fields(data: bytes) -> Fields:
    fields = Fields(parse_canonical(data, MAX_REPLY, multiline=True), "device reply")
    if fields.has("error"):
        error = fields.fields("error")
        raise Refused("TEE device", error.text("message", 1024), "evidence")
    return fields


def _parse_devices(data: bytes) -> DeviceEvidence:
    fields = _fields(data)
    members = fields.mapping("collateral", 256)
    inner = Fields(members, "device reply.collateral")
    try:
        collateral = {name: inner.base64(name, limit=1 << 20).decode("utf-8") for name in members}
    except UnicodeDecodeError as error:
        raise Malformed("device reply.collateral holds something that is not text") from error
    found = DeviceEvidence(fields.base64("devices", limit=2 << 20), collateral)
    mode = fields.text("mode", 64)
    fields.done()
    require_confidential(mode)
    return found


def _parse_reply(data: bytes) -> Evidence:
    fields = _fields(data)
    collateral = {}
    for name, value in fields.mapping("collateral", 16).items():
        if not isinstance(value, str):
            raise Malformed(f"collateral {name} is not a string")
        collateral[name] = value
    found = Evidence(fields.base64("quote", limit=1 << 20), collateral)
    fields.done()
    return found
