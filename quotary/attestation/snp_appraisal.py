"""Facts of a SEV-SNP guest, a floor, a row and a verifier's demands give ``Appraised`` or raise.

What is never negotiable stands here and in no policy: debug, a migration agent, an unsigned or host-requested
report. Bits: AMD 56860 (SEV-SNP ABI), tables "Guest policy" and "PLATFORM_INFO".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from quotary.attestation import amd
from quotary.attestation.appraise import Floor, Masked
from quotary.attestation.appraise import meet_floor as appraise_floor
from quotary.attestation.facts import Appraised, Check, Facts
from quotary.attestation.layout import little
from quotary.attestation.snp import HELD_TO_FLOOR
from quotary.errors import Refused, Rejected, Unsupported

REQUIRED, ANY = "required", "any"

# Guest policy, as a little-endian integer.
SMT_ALLOWED = 1 << 16
ALWAYS_ONE = 1 << 17
MIGRATION_AGENT = 1 << 18
DEBUG = 1 << 19
CXL_ALLOWED = 1 << 21
# ABI version, single socket, AES-256-XTS, no RAPL, ciphertext hiding, no page swap: they restrict the host.
RESTRICTING = 0xFFFF | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25
# PLATFORM_INFO: memory was checked for aliases when the machine started (AMD-SB-3015, BadRAM).
ALIAS_CHECK = 1 << 5

_ANCHOR = "verifier's demands"


@dataclass(frozen=True, slots=True)
class Demands:
    """What a verifier demands of every SEV-SNP guest, whatever its release says.

    vmpl:         privilege levels that may ask for the report; 0 is the guest's most privileged
    signing_keys: of ``vcek`` (one chip, known by its id) and ``vlek`` (a cloud's key: no machine identity)
    csp_ids:      clouds whose VLEK is admitted, as AMD names them
    id_keys:      digests of 48 bytes of keys that may sign ID blocks; an unused (zero) one needs no listing
    author_keys:  likewise for the keys that sign ID keys
    mitigations:  bits that both mitigation vectors must have; 0 for none (reports of version 5 carry them)
    alias_check:  ``required`` or ``any``
    revocation:   ``required`` (a revocation list was there and in date) or ``any``
    """

    vmpl: tuple[int, ...]
    signing_keys: tuple[str, ...]
    csp_ids: tuple[str, ...]
    id_keys: tuple[bytes, ...]
    author_keys: tuple[bytes, ...]
    mitigations: int
    alias_check: str
    revocation: str


# The strictest demands that a current machine meets.
STRICT = Demands((0,), (amd.VCEK,), (), (), (), 0, REQUIRED, REQUIRED)


class Requirements(Protocol):
    """What a release's row demands besides the measurement."""

    @property
    def configuration(self) -> tuple[bytes, ...]: ...
    @property
    def guest_policy(self) -> Masked | None: ...


def appraise(facts: Facts, floor: Floor, requirements: Requirements, demands: Demands) -> Appraised:
    """Admit a SEV-SNP guest under floor, row and demands, or raise naming the check that failed."""
    checks = (
        *meet_requirements(facts, requirements),
        *meet_demands(facts, demands),
        *meet_floor(facts, floor),
    )
    return Appraised(facts, checks)


def meet_requirements(facts: Facts, requirements: Requirements) -> tuple[Check, ...]:
    """Hold the guest's policy and configuration against a row.

    1. Not debuggable, no migration agent, no policy bit that is unknown.
    2. SMT and CXL are allowed only where the row lists them; its other bits are as it says.
    3. ``host_data`` is one of the row's digests, or zero.
    """
    if facts.platform.removeprefix("sim-") != "snp":
        raise Unsupported(f"no SEV-SNP appraisal for the platform {facts.platform}")
    policy = little(facts.attributes["policy"])
    if policy & DEBUG:
        raise Refused("debug", f"guest policy {policy:#x} allows it", "bit 19 clear")
    if policy & MIGRATION_AGENT:
        raise Refused("migration", f"guest policy {policy:#x} allows an agent", "bit 18 clear")
    return (
        Check("debug", "off, no migration agent", "the same", "report"),
        _guest_policy(policy, requirements.guest_policy),
        _listed("configuration", facts.configuration["host_data"], requirements.configuration),
    )


def meet_demands(facts: Facts, demands: Demands) -> tuple[Check, ...]:
    """Hold the report's origin and the platform against a verifier's demands.

    1. A listed privilege level asked for it, not the host.
    2. A listed kind of key signed it, of a listed cloud; revocation was checked where that is required.
    3. ID and author keys are listed, or not used.
    4. Memory aliases were checked, mitigations are there.
    """
    found = facts.attributes
    vmpl = little(found["vmpl"])
    if vmpl not in demands.vmpl:
        wanted = ", ".join(str(level) for level in demands.vmpl)
        raise Refused("vmpl", "the host" if vmpl == 0xFFFFFFFF else str(vmpl), f"one of {wanted}")
    kind, csp = found["signing_key"].decode(), found["csp_id"].decode()
    if kind not in demands.signing_keys:
        raise Refused("signing key", kind, ", ".join(demands.signing_keys))
    if kind == amd.VLEK and csp not in demands.csp_ids:
        raise Refused("csp id", csp, ", ".join(demands.csp_ids) or "none")
    if demands.revocation != ANY and found["revocation"] != b"checked":
        raise Refused("revocation", "no revocation list", "the root's list beside the certificates, in date")
    return (
        Check("vmpl", str(vmpl), ", ".join(str(level) for level in demands.vmpl), _ANCHOR),
        Check("signing key", f"{kind} {csp}".strip(), ", ".join(demands.signing_keys), _ANCHOR),
        _listed("id key", facts.configuration["id_key_digest"], (*demands.id_keys, bytes(48))),
        _listed("author key", facts.configuration["author_key_digest"], (*demands.author_keys, bytes(48))),
        _platform_info(little(found["platform_info"]), demands.alias_check),
        _mitigations(found, demands.mitigations),
    )


def meet_floor(facts: Facts, floor: Floor) -> tuple[Check, ...]:
    """Hold reported, committed and launch TCB to a floor, component by component, and its lists."""
    for version in HELD_TO_FLOOR:
        for name, least in floor.minimum.items():
            value = facts.tcb.components.get(f"{version} {name}")
            if not isinstance(value, int) or not isinstance(least, int) or value < least:
                raise Refused("tcb minimum", f"{version} {name} {value!r}", f"at least {least!r}")
    return appraise_floor(facts, floor)


def _guest_policy(policy: int, rule: Masked | None) -> Check:
    mask = little(rule.mask) if rule else 0
    value = little(rule.value) if rule else 0
    wanted = f"no bits beside {RESTRICTING | ALWAYS_ONE | mask:#x}, {mask:#x} as {value:#x}"
    if policy & ~(RESTRICTING | ALWAYS_ONE | mask) or policy & mask != value or not policy & ALWAYS_ONE:
        raise Refused("guest policy", f"{policy:#x}", wanted)
    if policy >> 26:
        raise Refused("guest policy", f"{policy:#x}", "no bit above 25")
    return Check("guest policy", f"{policy:#x}", wanted, "row of the release")


def _listed(check: str, found: bytes, listed: tuple[bytes, ...]) -> Check:
    if found not in (listed or (bytes(len(found)),)):
        wanted = ", ".join(digest.hex() for digest in listed if any(digest)) or "zero (none)"
        raise Rejected(check, found.hex(), wanted)
    return Check(check, found.hex() if any(found) else "zero", "listed, or zero where none is", _ANCHOR)


def _platform_info(info: int, alias_check: str) -> Check:
    if alias_check != ANY and not info & ALIAS_CHECK:
        wanted = "bit 5 set: firmware that looks for aliases when the machine starts (AMD-SB-3015)"
        raise Refused("alias check", f"platform info {info:#x}", wanted)
    return Check("alias check", f"platform info {info:#x}", alias_check, _ANCHOR)


def _mitigations(found: Mapping[str, bytes], wanted: int) -> Check:
    at_launch = little(found.get("launch_mitigations", b""))
    current = little(found.get("current_mitigations", b""))
    if wanted & ~(at_launch & current):
        raise Refused(
            "mitigations", f"{at_launch:#x} at launch, {current:#x} now", f"the bits {wanted:#x} in both"
        )
    return Check("mitigations", f"{at_launch:#x} at launch, {current:#x} now", f"{wanted:#x}", _ANCHOR)
