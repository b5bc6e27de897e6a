"""The last of the three steps: facts, a TCB floor and a row's requirements give ``Appraised`` or ``Refused``.

Facts that break a measured rule are ``Rejected``, facts that the rules do not admit are ``Refused``; either
names its check. What is never negotiable stands here and in no policy: debug, migration, a service TD, a TD
without SEPT_VE_DISABLE. Bits: Intel TDX Module ABI, TD_ATTRIBUTES and XFAM.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from quotary.attestation.facts import Appraised, Check, Facts
from quotary.attestation.measure.rtmr0 import Replay, check_rtmr0
from quotary.errors import Refused, Rejected, Unsupported

# TD_ATTRIBUTES, as a little-endian integer: bits 0-7 are TUD (0 is DEBUG), the rest is named below.
DEBUG_BITS = 0xFF
SEPT_VE_DISABLE = 1 << 28
MIGRATABLE = 1 << 29
# XFAM bits that need no listing: x87 to AVX, AVX-512, PKRU, CET, user interrupts, AMX. Not among them:
# processor trace and last branch records, which tell a host more than it must know.
PLAIN_XFAM = 0x65AE7

# Words that a floor's grace excuses for a while, and what it must accept besides.
_GRACED: Mapping[str, tuple[str, ...]] = {
    "OutOfDate": (),
    "TDRelaunchAdvised": (),
    "OutOfDateConfigurationNeeded": ("ConfigurationNeeded",),
    "TDRelaunchAdvisedConfigurationNeeded": ("ConfigurationNeeded",),
}
_ZERO = bytes(48)


# Protocols, because the documents that carry these rules are read one layer above this package.
class Floor(Protocol):
    """The oldest firmware that a product may run (``docs/formats.md``, tcb-floor)."""

    @property
    def minimum(self) -> Mapping[str, int | bytes]: ...
    @property
    def evaluation_number(self) -> int: ...
    @property
    def accepted_status(self) -> tuple[str, ...]: ...
    @property
    def grace_seconds(self) -> int: ...
    @property
    def denied_advisories(self) -> tuple[str, ...]: ...
    @property
    def denied_families(self) -> tuple[str, ...]: ...
    @property
    def denied_chips(self) -> tuple[str, ...]: ...


class Masked(Protocol):
    """``found & mask == value``, 8 bytes each, as reported."""

    @property
    def mask(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...


class RTMR0Rule(Protocol):
    """One of the exact values, or a replay whose named slots are free."""

    @property
    def exact(self) -> tuple[bytes, ...]: ...
    @property
    def free(self) -> tuple[str, ...]: ...


class Requirements(Protocol):
    """What a release's row demands besides the registers of the measurement id."""

    @property
    def configuration(self) -> tuple[bytes, ...]: ...
    @property
    def rtmr0(self) -> RTMR0Rule | None: ...
    @property
    def td_attributes(self) -> Masked | None: ...
    @property
    def xfam(self) -> Masked | None: ...


def appraise(
    facts: Facts, floor: Floor, requirements: Requirements, replay: Replay | None = None
) -> Appraised:
    """Admit a TDX machine under a floor and a row's requirements, or raise naming the check that failed."""
    return Appraised(facts, (*meet_requirements(facts, requirements, replay), *meet_floor(facts, floor)))


def meet_requirements(
    facts: Facts, requirements: Requirements, replay: Replay | None = None
) -> tuple[Check, ...]:
    """Hold the TD's attributes, configuration and free registers against a row (TDX).

    1. Not debuggable, not migratable, no service TD, SEPT_VE_DISABLE set.
    2. No other attribute or extended feature than the row lists.
    3. ``mr_config_id`` is one of the row's digests, or zero; owner fields are zero.
    4. RTMR0 by its rule, zero without one; RTMR3 is zero.

    replay: what RTMR0 is explained with where the row has free slots; refused there when it is None
    """
    _require_platform(facts)
    attributes = int.from_bytes(facts.attributes["td_attributes"], "little")
    _refuse_bits("debug", attributes & DEBUG_BITS)
    _refuse_bits("migration", attributes & MIGRATABLE)
    if facts.attributes.get("mr_service_td", _ZERO) != _ZERO:
        raise Refused("service td", facts.attributes["mr_service_td"].hex(), "none (zero)")
    if not attributes & SEPT_VE_DISABLE:
        raise Refused("sept_ve_disable", "bit 28 is clear", "bit 28 set by whoever starts the guest")
    return (
        Check("debug", "off, not migratable, no service td", "the same", "td report"),
        _bits(facts, "td_attributes", SEPT_VE_DISABLE, requirements.td_attributes),
        _bits(facts, "xfam", PLAIN_XFAM, requirements.xfam),
        _configuration(facts, requirements.configuration),
        _rtmr0(facts.registers, requirements.rtmr0, replay),
        _zero("rtmr3", facts.registers["rtmr3"]),
    )


def meet_floor(facts: Facts, floor: Floor) -> tuple[Check, ...]:
    """Hold the machine's firmware and identity against a floor of its product, component by component."""
    for name, least in floor.minimum.items():
        _require_component(name, facts.tcb.components.get(name), least)
    found = facts.tcb.evaluation_number
    if found < floor.evaluation_number:
        wanted = f"documents of number {floor.evaluation_number} or later, from the vendor's service"
        raise Refused("tcb evaluation number", str(found), wanted)
    status = _status(facts, floor)
    for advisory in facts.tcb.advisories:
        if advisory in floor.denied_advisories:
            raise Refused("denied advisory", advisory, f"firmware that {advisory} is not about")
    for family in floor.denied_families:
        if facts.product.startswith(family):
            raise Refused("denied family", facts.product, f"not {family}")
    for chip in facts.chips:
        if chip in floor.denied_chips:
            raise Refused("denied chip", chip, "none of the floor's list")
    anchor = f"floor of {facts.platform} {facts.product}"
    return (
        Check("tcb minimum", _components(facts.tcb.components), _components(floor.minimum), anchor),
        Check("tcb evaluation number", str(found), f"at least {floor.evaluation_number}", anchor),
        status,
        Check(
            "denied",
            f"{len(facts.tcb.advisories)} advisories, {len(facts.chips)} chips",
            "none denied",
            anchor,
        ),
    )


def _require_platform(facts: Facts) -> None:
    if facts.platform.removeprefix("sim-") != "tdx":
        raise Unsupported(f"no appraisal for the platform {facts.platform}")


def _refuse_bits(check: str, bits: int) -> None:
    if bits:
        raise Refused(check, f"td_attributes bits {bits:#x}", "clear")


def _bits(facts: Facts, name: str, plain: int, rule: Masked | None) -> Check:
    found = int.from_bytes(facts.attributes[name], "little")
    mask = int.from_bytes(rule.mask, "little") if rule else 0
    value = int.from_bytes(rule.value, "little") if rule else 0
    wanted = f"no bits beside {plain | mask:#x}, {mask:#x} as {value:#x}"
    if found & ~(plain | mask) or found & mask != value:
        raise Refused(name, f"{found:#x}", wanted)
    return Check(name, f"{found:#x}", wanted, "row of the release")


def _configuration(facts: Facts, digests: tuple[bytes, ...]) -> Check:
    for name in ("mr_owner", "mr_owner_config"):
        _zero(name, facts.configuration[name])
    found = facts.configuration["mr_config_id"]
    if found not in (digests or (_ZERO,)):
        wanted = ", ".join(digest.hex() for digest in digests) or "zero (none)"
        raise Rejected("configuration", found.hex(), wanted)
    return Check("configuration", found.hex(), "one of the row's, or zero", "row of the release")


def _rtmr0(registers: Mapping[str, bytes], rule: RTMR0Rule | None, replay: Replay | None) -> Check:
    found = registers["rtmr0"]
    if rule is None:
        return _zero("rtmr0", found)
    if rule.free:
        return check_rtmr0(registers, rule.free, replay)
    if found not in rule.exact:
        raise Rejected("rtmr0", found.hex(), ", ".join(value.hex() for value in rule.exact))
    return Check("rtmr0", found.hex(), "an exact value", "row of the release")


def _zero(name: str, found: bytes) -> Check:
    if any(found):
        raise Rejected(name, found.hex(), "zero")
    return Check(name, "zero", "zero", "row of the release")


def _require_component(name: str, found: bytes | int | None, least: bytes | int) -> None:
    if isinstance(found, bytes) and isinstance(least, bytes) and len(found) == len(least):
        enough = all(mine >= wanted for mine, wanted in zip(found, least, strict=True))
    else:
        enough = isinstance(found, int) and isinstance(least, int) and found >= least
    if not enough:
        raise Refused(
            "tcb minimum", f"{name} {_text(found)}", f"at least {_text(least)}{_lacking(found, least)}"
        )


def _lacking(found: bytes | int | None, least: bytes | int) -> str:
    """Name the components that are too low, where there are several in one value."""
    if not isinstance(found, bytes) or not isinstance(least, bytes) or len(found) != len(least):
        return ""
    low = [index for index, wanted in enumerate(least) if found[index] < wanted]
    return ": " + ", ".join(f"component {index} is {found[index]}, not {least[index]}" for index in low)


def _status(facts: Facts, floor: Floor) -> Check:
    tcb, wanted = facts.tcb, ", ".join(floor.accepted_status)
    if tcb.status != "Revoked" and tcb.status in floor.accepted_status:
        return Check("tcb status", tcb.status, wanted, "TCB info")
    if tcb.superseded_at is None:
        raise Refused("tcb status", tcb.status, wanted)
    found = f"{tcb.status} since the level of {tcb.superseded_at.date()}"
    if tcb.advisories:
        found += f" ({', '.join(tcb.advisories)})"
    also = _GRACED.get(tcb.status)
    until = tcb.superseded_at + timedelta(seconds=floor.grace_seconds)
    if also is not None and set(also) <= set(floor.accepted_status):
        if facts.judged_at < until:
            words = f"update before {until.isoformat()}"
            return Check("tcb status", f"{tcb.status}, in grace", words, "TCB info")
        wanted += f" (grace ended at {until.isoformat()})"
    raise Refused("tcb status", found, f"{wanted}: firmware of that level or newer")


def _components(found: Mapping[str, bytes | int]) -> str:
    return ", ".join(f"{name} {_text(found[name])}" for name in sorted(found))


def _text(value: bytes | int | None) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
