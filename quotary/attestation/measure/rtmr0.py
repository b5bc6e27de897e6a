"""RTMR0 by replay: the machine's event log explains the register, and each event is held against its slot.

Which event stands where is the profile's; neither an event's type nor its name selects anything. A slot is
the profile's own (constants, empty variables, fixed texts), or follows from the release's material
(``docs/formats/attestation.md``), or is named free by the row. Everything else is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.facts import Check
from quotary.attestation.measure.ccel import parse
from quotary.attestation.measure.events import NO_ACTION, Event, proven_data, verify_replay
from quotary.attestation.measure.hob import td_hob
from quotary.attestation.measure.profiles import TDXProfile
from quotary.attestation.measure.tdvf import MAX_SECTIONS, Section
from quotary.attestation.measure.tdx import SELF_DESCRIBING, fixed_digest, sha384
from quotary.canonical import Fields, hexbytes
from quotary.errors import Malformed, Refused, Rejected, Unsupported

# What follows from files and machine, not from the profile.
_MATERIAL = ("td-hob", "cfv")


@dataclass(frozen=True, slots=True)
class Replay:
    """What RTMR0 is replayed with.

    log:     the machine's event log (``ccel.py``), or None when it shows none
    profile: the profile that the row names
    known:   digests of events that follow from the release's material, by name (48 bytes)
    """

    log: bytes | None
    profile: TDXProfile
    known: Mapping[str, bytes]


def material_digests(material: Mapping[str, object], memory: object) -> Mapping[str, bytes]:
    """Compute event digests from a release's material ``tdx``: ``{cfv_sha384, sections}``; empty without it.

    memory: bytes of the machine's memory as the row's shape says; without it there is no TD HOB
    """
    if "tdx" not in material:
        return {}
    fields = Fields(material["tdx"], "material.tdx")
    found = {"cfv": fields.hexbytes("cfv_sha384", 48)}
    sections = [_section(item) for item in fields.items("sections", MAX_SECTIONS, 1)]
    fields.done()
    if isinstance(memory, int):
        found["td-hob"] = sha384(td_hob(memory, sections))
    return found


def material_of(sections: Sequence[Section], configuration_volume: bytes) -> dict[str, object]:
    """Write the material that ``material_digests`` reads, from a firmware's sections and variable store."""
    return {
        "cfv_sha384": sha384(configuration_volume).hex(),
        "sections": [[f"{one.gpa:016x}", f"{one.memory:016x}", one.type] for one in sections],
    }


def address(value: object) -> int:
    """Read an address as a material's sections have it: 16 hex digits."""
    if not isinstance(value, str):
        raise Malformed("an address of a material's section is not text")
    return int.from_bytes(hexbytes(value, 8), "big")


def check_rtmr0(registers: Mapping[str, bytes], free: Sequence[str], replay: Replay | None) -> Check:
    """Explain RTMR0 by the machine's event log, or raise naming the event that has no business there.

    1. The log is well formed and replays to all four registers that the hardware signed.
    2. It has exactly the profile's events of RTMR0, in the profile's order.
    3. Each event's digest is the profile's or the material's; those of the row's free slots may be any.
    4. Where digest and data hang together the log's data are what was measured.
    """
    if replay is None or replay.log is None:
        raise Refused("event log", "none", "the event log that RTMR0 is replayed from")
    slots = replay.profile.rtmr0
    for name in free:
        if name not in slots:
            raise Malformed(f"the row frees the event {name}, which {replay.profile.name} has not")
    events = parse(replay.log)
    verify_replay(events, registers)
    found = [event for event in events if event.register == "rtmr0" and event.type != NO_ACTION]
    if len(found) != len(slots):
        raise Rejected("rtmr0", f"{len(found)} events", f"{len(slots)} of {replay.profile.name}")
    for name, event in zip(slots, found, strict=True):
        if name not in free:
            _require_slot(name, event, replay)
    said = f"{len(slots)} events, free: {', '.join(free) or 'none'}"
    return Check("rtmr0", registers["rtmr0"].hex(), f"replayed, {said}", f"profile {replay.profile.name}")


def _require_slot(name: str, event: Event, replay: Replay) -> None:
    wanted = fixed_digest(name, replay.profile) or (replay.known.get(name) if name in _MATERIAL else None)
    if wanted is None:
        raise Unsupported(f"neither row nor material of the release say what RTMR0's event {name} is")
    if event.digest != wanted:
        raise Rejected("rtmr0", f"{name} {event.digest.hex()}", wanted.hex())
    if name in SELF_DESCRIBING:
        proven_data(event)


def _section(item: object) -> Section:
    if not isinstance(item, tuple | list) or len(item) != 3 or not isinstance(item[2], int):
        raise Malformed("material.tdx.sections are of address, size and type")
    gpa, memory = (address(value) for value in item[:2])
    return Section(0, 0, gpa, memory, item[2], 0)
