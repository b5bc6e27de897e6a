"""The event log of a confidential guest, as ACPI's CCEL table shows it (UEFI 2.10 section 38.4; TCG PC
Client Platform Firmware Profile section 10.2, crypto-agile format).

A TCG_PCR_EVENT with the list of algorithms, TCG_PCR_EVENT2 until the area's end or its padding of equal
bytes. Little endian. Register number 0 is MRTD, 1 to 4 are RTMR0 to RTMR3. The log comes from the guest:
every length is bounded, and only ``Malformed`` comes out.
"""

import struct
from collections.abc import Iterable, Iterator

from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.measure.events import DIGEST_LENGTH, NO_ACTION, Event
from quotary.errors import Malformed

MAX_LOG = 1 << 20
MAX_EVENTS = 4096
SHA384 = 0x000C

_NAMES = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_LENGTHS = {0x0004: 20, 0x000B: 32, SHA384: DIGEST_LENGTH, 0x000D: 64, 0x0012: 32}
_SIGNATURE = b"Spec ID Event03\0"
_FIRST = Layout(
    "event log's first event",
    32,
    fields(("register", 0, 4), ("type", 4, 4), ("digest", 8, 20), ("length", 28, 4)),
)
_MAX_ALGORITHMS = 5


def parse(data: bytes) -> tuple[Event, ...]:
    """Read a log of at most ``MAX_LOG`` bytes, padding included, that has SHA-384 digests."""
    if len(data) > MAX_LOG:
        raise Malformed(f"event log has {len(data)} bytes, at most {MAX_LOG} are allowed")
    reader = _Reader(data)
    algorithms = _algorithms(reader)
    found: list[Event] = []
    while reader.left and not reader.padding():
        if len(found) == MAX_EVENTS:
            raise Malformed(f"event log has more than {MAX_EVENTS} events")
        found.append(_event(reader, algorithms))
    return tuple(found)


def encode(events: Iterable[Event], area: int) -> bytes:
    """Write a log with SHA-384 digests alone, padded with 0xff to an area of this many bytes."""
    spec = _SIGNATURE + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, SHA384, DIGEST_LENGTH, 0)
    parts = [struct.pack("<II20xI", 1, NO_ACTION, len(spec)), spec]
    for event in events:
        if event.register not in _NAMES or len(event.digest) != DIGEST_LENGTH:
            raise Malformed(f"an event needs a register and a digest of {DIGEST_LENGTH} bytes")
        head = struct.pack("<IIIH", _NAMES.index(event.register), event.type, 1, SHA384)
        parts += [head, event.digest, struct.pack("<I", len(event.data)), event.data]
    data = b"".join(parts)
    if not len(data) <= area <= MAX_LOG:
        raise Malformed(f"event log of {len(data)} bytes does not fit its area of {area}")
    return data.ljust(area, b"\xff")


class _Reader:
    """A position in the log."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise Malformed(f"event log ends {length - self.left} bytes early")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, length: int) -> int:
        return little(self.take(length))

    def padding(self) -> bool:
        # An event is not of register 0xffffffff, and none of register and type 0; then nothing may follow.
        filler = self.data[self.at : self.at + 1]
        if filler not in (b"\0", b"\xff") or self.data[self.at : self.at + 8] != filler * min(8, self.left):
            return False
        if self.data.count(filler, self.at) != self.left:
            raise Malformed("event log goes on behind its end")
        return True


def _algorithms(reader: _Reader) -> dict[int, int]:
    first = _FIRST.read(reader.take(_FIRST.length))
    spec = _Reader(reader.take(little(first["length"])))
    if little(first["type"]) != NO_ACTION or any(first["digest"]) or spec.take(16) != _SIGNATURE:
        raise Malformed("event log does not begin with a Spec ID event of version 3")
    # Platform class, version and errata decide nothing.
    spec.take(8)
    count = spec.number(4)
    if not 1 <= count <= _MAX_ALGORITHMS:
        raise Malformed(f"event log has {count} hash algorithms, 1 to {_MAX_ALGORITHMS} are allowed")
    found = dict(_pairs(spec, count))
    spec.take(spec.number(1))
    if len(found) != count or spec.left or SHA384 not in found:
        raise Malformed("event log's list of hash algorithms is not well formed or lacks SHA-384")
    if any(_LENGTHS.get(name) != length for name, length in found.items()):
        raise Malformed("event log has a hash algorithm that is not known or has another length")
    return found


def _pairs(spec: _Reader, count: int) -> Iterator[tuple[int, int]]:
    for _ in range(count):
        yield spec.number(2), spec.number(2)


def _event(reader: _Reader, algorithms: dict[int, int]) -> Event:
    register, kind, count = reader.number(4), reader.number(4), reader.number(4)
    if register >= len(_NAMES) or count != len(algorithms):
        raise Malformed(f"event log has an event of register {register} with {count} digests")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        name = reader.number(2)
        if name in digests or name not in algorithms:
            raise Malformed(f"event log has a digest of the algorithm {name:#x} twice or unannounced")
        digests[name] = reader.take(algorithms[name])
    return Event(_NAMES[register], kind, digests[SHA384], reader.take(reader.number(4)))
