"""Events of a boot, and what they make of the runtime registers: replay (TCG PC Client Platform Firmware
Profile, section 10; UEFI 2.10 section 38.4.1).

An event log is never believed by itself: it explains registers that the hardware signed. What its events say
in words and bytes is believed only where the digest is a function of it, ``proven_data``.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.measure.trace import ZERO, Measured, Step, extend
from quotary.errors import Malformed, Rejected

NO_ACTION, SEPARATOR, TAG, IPL = 3, 4, 6, 13
VARIABLE, BOOT_VARIABLE, ACTION = 0x80000001, 0x80000002, 0x80000007
REGISTERS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
DIGEST_LENGTH = 48

_GRUB = b"grub_cmd: "
_VARIABLE_HEAD = 32


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    register: which register it extended, or ``mrtd``
    type:     the TCG's number of its kind
    digest:   48 bytes, SHA-384; what the register was extended with
    data:     what the log says was measured
    """

    register: str
    type: int
    digest: bytes
    data: bytes


def replay(events: Iterable[Event]) -> Measured:
    """Compute the four runtime registers from a log, with a step for each event; the rest stays zero."""
    chosen: dict[str, list[tuple[str, bytes]]] = {name: [] for name in REGISTERS}
    for event in events:
        if event.type == NO_ACTION:
            continue
        if event.register not in chosen:
            raise Malformed(f"an event extends {event.register}, which no event can")
        name = f"event {len(chosen[event.register])} of type {event.type:#x}"
        chosen[event.register].append((name, event.digest))
    registers: dict[str, bytes] = {}
    steps: list[Step] = []
    for register, pairs in chosen.items():
        registers[register], more = extend(register, pairs)
        steps += more
    return Measured(registers, tuple(steps))


def verify_replay(events: Sequence[Event], registers: Mapping[str, bytes]) -> None:
    """Hold a log against registers that hardware signed; raises ``Rejected`` for the first that differs."""
    found = replay(events).registers
    for name in REGISTERS:
        if found[name] != registers.get(name, ZERO):
            raise Rejected("event log", f"{name} {found[name].hex()}", registers.get(name, ZERO).hex())


def proven_data(event: Event) -> bytes:
    """Return what an event's digest is of, by its type; raises ``Rejected`` if the digest is not of it.

    Only for kinds whose digest is a function of the data. Raises ``Malformed`` for other kinds (a PE image,
    firmware volumes, ACPI tables: their log entry is unhashed text).
    """
    data = _hashed(event)
    digest = hashlib.sha384(data).digest()
    if digest != event.digest:
        raise Rejected("event data", f"digest {digest.hex()}", event.digest.hex())
    return data


def _hashed(event: Event) -> bytes:
    data = event.data
    if event.type in (SEPARATOR, VARIABLE, ACTION):
        return data
    if event.type == BOOT_VARIABLE and len(data) >= _VARIABLE_HEAD:
        # UEFI_VARIABLE_DATA; of boot variables the value alone is hashed.
        name, length = struct.unpack_from("<QQ", data, 16)
        if _VARIABLE_HEAD + 2 * name + length == len(data):
            return data[_VARIABLE_HEAD + 2 * name :]
    if event.type == IPL and data.startswith(_GRUB):
        return data.removeprefix(_GRUB).rstrip(b"\0")
    raise Malformed(f"the digest of an event of type {event.type:#x} is not of its {len(data)} bytes of data")
