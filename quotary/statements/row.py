"""One row of a release: what one platform must show, and by which rules (design section 4).

A row has one measurement id. Whatever the id does not cover is under ``require``: configuration digests,
RTMR0, TD attributes, devices. An absent ``rtmr0`` means that RTMR0 is zero, never that it is not looked
at; an absent mask adds nothing to what the verifier's policy demands.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quotary.canonical import Fields, hexbytes
from quotary.errors import Malformed
from quotary.statements.measurement import REGISTERS, base_platform, measurement_id, register_length
from quotary.statements.predicates import ascending, free, strings

ACPI_SANDBOX = "acpi-sandbox"

# HOST_DATA, MRCONFIGID, CONFIGID; Nitro has no such field.
_CONFIGURATION_LENGTH = {"nitro": 0, "sgx": 64, "snp": 32, "tdx": 48}


@dataclass(frozen=True, slots=True)
class Masked:
    """A rule for 8 bytes of attributes, bytes in the order of the evidence: ``found & mask == value``."""

    mask: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class RTMR0:
    """How RTMR0 is checked: one of the exact values, or by replaying its event log with free slots.

    exact: values of 48 bytes; empty when it is replayed
    free:  names of the event slots whose digest may be anything; empty when it is exact
    """

    exact: tuple[bytes, ...]
    free: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs that the machine must prove: architecture (``gh100``), how many, and their firmware's versions."""

    architecture: str
    count: int
    drivers: tuple[str, ...]
    vbios: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Require:
    """What must hold besides the registers of the measurement id.

    configuration: exact digests of HOST_DATA (32 bytes), MRCONFIGID (48) or CONFIGID (64); empty is the
                   written ``none``: the field is zero
    guest:         properties of the guest that make other rules safe: ``acpi-sandbox``
    """

    configuration: tuple[bytes, ...]
    rtmr0: RTMR0 | None
    td_attributes: Masked | None
    xfam: Masked | None
    guest_policy: Masked | None
    guest: tuple[str, ...]
    devices: tuple[Devices, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """The reference values of one platform and machine shape.

    profile_sha256: 32 bytes, digest of the profile's data that says how the registers were computed
    registers:      exactly the registers of the measurement id
    measurement:    the measurement id, 32 bytes
    shape:          the machine that the row is for, e.g. ``{"vcpus": 4}``; for people and for recomputing
    """

    platform: str
    profile: str
    profile_sha256: bytes
    registers: Mapping[str, bytes]
    measurement: bytes
    require: Require
    shape: Mapping[str, object] | None


def parse_row(value: object) -> Row:
    """Read one row."""
    fields = Fields(value, "row")
    platform = fields.name("platform", 64)
    registers = _registers(fields.mapping("registers", 16), platform)
    row = Row(
        platform,
        fields.name("profile", 128),
        fields.hexbytes("profile_sha256", 32),
        registers,
        measurement_id(platform, registers),
        _require(fields.fields("require"), base_platform(platform)),
        fields.optional("shape", lambda name: free(fields, name, 32)),
    )
    fields.done()
    return row


def _registers(members: dict[str, object], platform: str) -> dict[str, bytes]:
    names = REGISTERS[base_platform(platform)]
    if members.keys() != set(names):
        raise Malformed(f"the registers of {platform} are exactly {', '.join(names)}")
    fields = Fields(members, "registers")
    return {name: fields.hexbytes(name, register_length(platform)) for name in names}


def _require(fields: Fields, base: str) -> Require:
    rules = (
        ("rtmr0", "td_attributes", "xfam") if base == "tdx" else ("guest_policy",) if base == "snp" else ()
    )
    masks = {
        name: _masked(fields.fields(name), name)
        for name in ("td_attributes", "xfam", "guest_policy")
        if name in rules and fields.has(name)
    }
    guest = strings(fields, "guest", 1, low=1) if fields.has("guest") else ()
    if guest not in ((), (ACPI_SANDBOX,)):
        raise Malformed(f"guest knows only {ACPI_SANDBOX}")
    require = Require(
        _configuration(fields, base),
        _rtmr0(fields.fields("rtmr0"), guest) if base == "tdx" and fields.has("rtmr0") else None,
        masks.get("td_attributes"),
        masks.get("xfam"),
        masks.get("guest_policy"),
        guest,
        _devices(fields) if fields.has("devices") else (),
    )
    fields.done()
    return require


def _configuration(fields: Fields, base: str) -> tuple[bytes, ...]:
    if fields.value("configuration") == "none":
        return ()
    length = _CONFIGURATION_LENGTH[base]
    if not length:
        raise Malformed(f"{base} has no configuration digest: write none")
    return tuple(hexbytes(text, length) for text in strings(fields, "configuration", 16, low=1))


def _rtmr0(fields: Fields, guest: tuple[str, ...]) -> RTMR0:
    if fields.has("exact"):
        rule = RTMR0(tuple(hexbytes(text, 48) for text in strings(fields, "exact", 64, low=1)), ())
    else:
        replay = fields.fields("replay")
        rule = RTMR0((), strings(replay, "free", 16, low=1, length=64))
        replay.done()
    fields.done()
    if any(name.startswith("acpi") for name in rule.free) and not guest:
        raise Malformed(f"free ACPI slots need the guest property {ACPI_SANDBOX}")
    return rule


def _masked(fields: Fields, what: str) -> Masked:
    rule = Masked(fields.hexbytes("mask", 8), fields.hexbytes("value", 8))
    fields.done()
    if any(value & ~mask & 0xFF for mask, value in zip(rule.mask, rule.value, strict=True)):
        raise Malformed(f"{what} has a value outside its mask")
    return rule


def _devices(fields: Fields) -> tuple[Devices, ...]:
    found: list[Devices] = []
    for value in fields.items("devices", 4, low=1):
        member = Fields(value, "devices")
        found.append(
            Devices(
                member.name("architecture", 64),
                member.integer("count", 1, 64),
                strings(member, "drivers", 16, low=1, length=64),
                strings(member, "vbios", 16, low=1, length=64),
            )
        )
        member.done()
    return ascending(tuple(found), "devices", lambda item: item.architecture)
