"""Evidence by itself under a policy: what its hardware is worth, without log, release and status.

Whoever sends bare evidence can be told that a vendor signed it, that it answers a challenge, and how its
firmware and settings stand to a policy; never that it runs a released image. So nothing here speaks of
executables. ``quotary verifier`` says it as an attestation result (``ear.py``).
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from quotary.attestation import devices
from quotary.attestation.facts import Check, Facts
from quotary.attestation.kept import NONCE_LENGTH, Kept
from quotary.attestation.quote import (
    AZURE,
    NITRO,
    NOT_CHECKED,
    NVIDIA_LIST,
    NVIDIA_REPORT,
    NVIDIA_TOKEN,
    Terms,
    Verified,
    device_evidence,
    recognise,
    verify_quote,
)
from quotary.client.demands import meet_machines
from quotary.client.device_rules import DeviceRules
from quotary.client.evidence import admitted_roots
from quotary.client.platforms import NO_VERSION, platform_of
from quotary.client.policy import PlatformRules, Policy
from quotary.errors import Refused, Rejected, Unsupported
from quotary.statements.measurement import base_platform
from quotary.statements.row import RTMR0, Masked, Require

NITRO_MAX_AGE = timedelta(minutes=5)
REPORT_DATA_LENGTH = 64
UP_TO_DATE = "UpToDate"

# What only the release's row can decide, and a row "as found" therefore does not.
_OF_A_ROW = ("configuration", "rtmr0", "rtmr3", "guest policy")
_CONFIGURATION = {"tdx": "mr_config_id", "snp": "host_data", "sgx": "config_id"}
# Guest policy bits that a row may list: SMT and CXL.
_NEGOTIABLE = (1 << 16 | 1 << 21).to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a policy makes of evidence that its vendor signed.

    platform: as facts name it, ``tdx`` or ``sim-tdx``
    firmware: its version numbers in words; what the vendor does not attest says so
    checks:   all that was looked at, and what was not
    fresh:    it answers the caller's challenge
    assessed: how new its firmware is was held against something
    up_to_date: ... and reaches it
    known_machine: the policy lists the machine
    """

    platform: str
    firmware: str
    simulated: bool
    checks: tuple[Check, ...]
    fresh: bool
    assessed: bool
    up_to_date: bool
    known_machine: bool


def terms_of(kept: Kept, policy: Policy, challenge: bytes | None) -> Terms:
    """Give what evidence is held against: the policy's roots, and a challenge that devices sign themselves.

    Devices answer 32 bytes each: one challenge of that length is for all of them.
    """
    roots = admitted_roots(policy)
    if policy.simulation and policy.devices is not None:
        roots = (*roots, *policy.devices.roots)
    nonces = kept.nonces
    if challenge is not None and recognise(kept.evidence) in (NVIDIA_LIST, NVIDIA_REPORT):
        nonces = _nonces(challenge, len(device_evidence(kept.evidence, kept.collateral)))
    return Terms(roots, kept.judged_at, NITRO_MAX_AGE, nonces)


def appraise_evidence(kept: Kept, policy: Policy, challenge: bytes | None) -> Appraisal:
    """Judge evidence with its collateral at its time, or raise the check that failed.

    1. A vendor whose root the policy admits signed it.
    2. It answers the challenge, where there is one.
    3. The policy lists its platform, and the machine where it lists machines.
    4. Debug and whatever else is never negotiable is off; the policy's demands are met.
    5. Firmware reaches the policy's floor, or the vendor calls it up to date.
    """
    kind = recognise(kept.evidence)
    if kind == NVIDIA_TOKEN:
        raise Unsupported("a token of NVIDIA's service is NVIDIA's verdict and no evidence of a device")
    if kind in (NVIDIA_LIST, NVIDIA_REPORT) and policy.devices is None:
        raise Refused("platform", kind, "devices that the policy admits")
    found = verify_quote(kept.evidence, kept.collateral, terms_of(kept, policy, challenge))
    if policy.devices is not None and found.devices:
        return _devices(found, policy.devices, challenge)
    assert found.facts is not None
    answered = _answers(found, found.facts, challenge)
    return _machine(found, found.facts, policy, answered)


def rules_for(facts: Facts, policy: Policy) -> PlatformRules:
    """Give what the policy says of a platform, or refuse one that it does not list (check ``platform``)."""
    rules = policy.platforms.get(facts.platform)
    if rules is None:
        raise Refused("platform", facts.platform, " or ".join(policy.platforms))
    return rules


def _nonces(challenge: bytes, count: int) -> tuple[bytes, ...]:
    if len(challenge) == NONCE_LENGTH:
        return (challenge,) * count
    if len(challenge) != NONCE_LENGTH * count:
        wanted = f"{NONCE_LENGTH} bytes, or so many for each of {count} devices"
        raise Rejected("challenge", f"{len(challenge)} bytes", wanted)
    return tuple(challenge[at : at + NONCE_LENGTH] for at in range(0, len(challenge), NONCE_LENGTH))


def _answers(found: Verified, facts: Facts, challenge: bytes | None) -> Check:
    """Compare report data (on Nitro ``user_data``) with the challenge; a shorter one stands before zeros."""
    anchor, wanted = "report data in the evidence", "the challenge"
    if found.kind == AZURE:
        reason = "Azure's paravisor chooses report data; a challenge would be in a vTPM quote"
        return Check("challenge", f"{NOT_CHECKED}: {reason}", wanted, anchor)
    if challenge is None:
        return Check("challenge", f"{NOT_CHECKED}: none was sent", wanted, anchor)
    padded = challenge if found.kind == NITRO else challenge.ljust(REPORT_DATA_LENGTH, b"\0")
    if not challenge or not hmac.compare_digest(facts.report_data, padded):
        raise Rejected("challenge", facts.report_data.hex() or "nothing", padded.hex() or "a challenge")
    return Check("challenge", challenge.hex(), wanted, anchor)


def _machine(found: Verified, facts: Facts, policy: Policy, answered: Check) -> Appraisal:
    rules = rules_for(facts, policy)
    machines = meet_machines(facts, rules.demands)
    known = platform_of(facts.platform)
    settled = known.requirements(_without_rtmr3(facts), _as_found(facts), rules.demands, None)
    level, up_to_date = _level(facts, policy)
    checks = (*found.checks, answered, *machines, *map(_left_to_the_row, settled), *level)
    components = facts.tcb.components
    named = (f"{name} {_text(components[name])}" for name in sorted(components))
    return Appraisal(
        platform=facts.platform,
        firmware=", ".join(named) or "not attested",
        simulated=facts.simulated,
        checks=checks,
        fresh=not answered.found.startswith(NOT_CHECKED),
        assessed=up_to_date is not None,
        up_to_date=bool(up_to_date),
        known_machine=bool(machines),
    )


def _level(facts: Facts, policy: Policy) -> tuple[tuple[Check, ...], bool | None]:
    """Hold firmware against the policy's floor; without one, against the vendor's own word, if it has one."""
    own, meet_floor = policy.platforms[facts.platform].floors, platform_of(facts.platform).floor
    anchor = f"floor of {facts.platform} {facts.product}"
    if meet_floor is None:
        if own is not None:
            raise Refused("tcb floor", NO_VERSION, "the policy's own floor; write log for this platform")
        # There is nothing that could be out of date in what is attested.
        return (Check("tcb floor", f"{NOT_CHECKED}: {NO_VERSION}", "a floor", anchor),), True
    if own is not None:
        if facts.product not in own:
            raise Refused("tcb floor", f"product {facts.product}", f"one of {', '.join(own) or 'none'}")
        return meet_floor(facts, own[facts.product]), True
    reason = f"{NOT_CHECKED}: the policy leaves floors to the log, which is not looked at here"
    said = None if facts.tcb.status == "none" else facts.tcb.status == UP_TO_DATE
    return (Check("tcb floor", reason, "a floor of the policy", anchor),), said


def _devices(found: Verified, rules: DeviceRules, challenge: bytes | None) -> Appraisal:
    checks = list(found.checks)
    for device in found.devices:
        if device.kind == "gpu" and devices.mode(device) not in rules.modes:
            raise Refused("device mode", devices.mode(device), ", ".join(rules.modes))
        if rules.floors is not None:
            floor = rules.floors.get(device.architecture.lower())
            if floor is None:
                raise Refused("tcb floor", device.architecture, f"one of {', '.join(rules.floors)}")
            checks += devices.meet_floor([device], floor)
    # Without manifests and answers of the vendor nobody knows what measurements and certificates are worth.
    open_points = {check.name for check in checks if check.found.startswith(NOT_CHECKED)}
    assessed = not open_points & {"golden values", "device revocation", "rim revocation"}
    versions = sorted(
        {f"{d.architecture} VBIOS {d.vbios} driver {d.driver or 'none'}" for d in found.devices}
    )
    return Appraisal(
        platform=found.devices[0].platform,
        firmware=", ".join(versions),
        simulated=found.simulated,
        checks=tuple(checks),
        fresh=challenge is not None,
        assessed=assessed,
        up_to_date=assessed,
        known_machine=False,
    )


def _as_found(facts: Facts) -> Require:
    """A row that lists what is there wherever only a release's row may decide."""
    name = _CONFIGURATION.get(base_platform(facts.platform))
    rtmr0 = facts.registers.get("rtmr0")
    policy = facts.attributes.get("policy")
    listed = None
    if policy is not None:
        value = bytes(found & mask for found, mask in zip(policy, _NEGOTIABLE, strict=True))
        listed = Masked(_NEGOTIABLE, value)
    return Require(
        configuration=() if name is None else (facts.configuration[name],),
        rtmr0=None if rtmr0 is None else RTMR0((rtmr0,), ()),
        td_attributes=None,
        xfam=None,
        guest_policy=listed,
        guest=(),
        devices=(),
    )


def _without_rtmr3(facts: Facts) -> Facts:
    if "rtmr3" not in facts.registers:
        return facts
    registers: Mapping[str, bytes] = {**facts.registers, "rtmr3": bytes(len(facts.registers["rtmr3"]))}
    return replace(facts, registers=registers)


def _left_to_the_row(check: Check) -> Check:
    if check.name not in _OF_A_ROW:
        return check
    return replace(check, found=f"{NOT_CHECKED}: only a release can say what it must be", anchor="none")


def _text(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
