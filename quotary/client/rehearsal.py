"""Would a machine that runs this boot under this policy? Answered from a bundle, before there is a machine.

What an enclave's boot check decides without looking at its own hardware, by the same functions: what the log
says of the measurement, and that the release was made for this very policy. What only hardware can show
stays ``not checked``.
"""

from quotary.client.clock import Clock
from quotary.client.policy import Policy
from quotary.client.trust import Memory
from quotary.client.verdict import Standing, Trail
from quotary.client.verify import verify_bundle
from quotary.errors import Refused
from quotary.statements.bundle import Bundle, parse_bundle
from quotary.statements.envelope import Envelope
from quotary.statements.release import Release
from quotary.statements.row import Row
from quotary.statements.schema import parse_statement

_ANCHOR = "the policy"


def rehearse(
    bundle: bytes, measurement: bytes | None, policy: Policy, memory: Memory, clock: Clock, trail: Trail
) -> Standing:
    """Give what the log says of the measurement, or raise what would stop the start.

    1. The policy says how an enclave runs.
    2. The log's state holds, and the measurement is active (steps 3 to 10 and 13 of the verification).
    3. The release was made for this policy, byte for byte.
    4. The policy admits the row's platform, and devices where the row demands some.
    """
    wanted = "rules for running an enclave"
    with trail.step("enclave", wanted, _ANCHOR):
        if policy.enclave is None:
            raise Refused("enclave", "no member enclave", wanted)
        trail.held("enclave", f"polls every {policy.enclave.poll_seconds} s", wanted, _ANCHOR)
    found = verify_bundle(bundle, measurement, policy, memory, clock, trail)
    release = _release(bundle)
    (row,) = (row for row in release.rows if row.measurement == found.measurement_id)
    _require_policy(policy, release, found, trail)
    _require_admitted(policy, row, trail)
    return found


def _release(bundle: bytes) -> Release:
    """Read the release of a bundle that was verified."""
    shown = parse_bundle(bundle)
    assert isinstance(shown, Bundle)
    assert shown.release is not None
    release = parse_statement(Envelope.parse(shown.release.entry).payload).predicate
    assert isinstance(release, Release)
    return release


def _require_policy(policy: Policy, release: Release, found: Standing, trail: Trail) -> None:
    wanted, anchor = f"policy {release.policy_sha256.hex()}", f"release {found.release}"
    with trail.step("policy", wanted, anchor):
        if release.policy_sha256 != policy.digest:
            raise Refused(
                "policy", policy.digest.hex(), f"{release.policy_sha256.hex()}, as the release names"
            )
        trail.held("policy", policy.digest.hex(), wanted, anchor)


def _require_admitted(policy: Policy, row: Row, trail: Trail) -> None:
    wanted = f"a policy that admits {row.platform}"
    with trail.step("platform", wanted, _ANCHOR):
        if row.platform not in policy.platforms:
            raise Refused("platform", ", ".join(policy.platforms), row.platform)
        if row.require.devices and policy.devices is None:
            raise Refused("devices", "a policy without rules for devices", "the policy's member devices")
        trail.held("platform", row.platform, wanted, _ANCHOR)
