"""What stops a start before there is a machine: platforms and devices that the policy does not admit."""

import pytest

from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.rehearsal import rehearse
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail
from quotary.errors import Refused
from tests.fakes import authority
from tests.fakes.log import policy_bytes
from tests.fakes.machine import SEED, World


def tried(world: World, document: dict[str, object], **require: object) -> Trail:
    policy, trail = Policy.parse(policy_bytes(document)), Trail()
    maker = world.log.maker
    rows = [authority.row(SEED, **require)]
    world.release = maker.release(rows=rows, policy_sha256=policy.digest.hex())
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    rehearse(world.bundle(), None, policy, ProcessMemory(), FixedClock(world.now), trail)
    return trail


def test_a_platform_that_the_policy_does_not_admit_would_not_boot(world: World) -> None:
    document = world.policy()
    rules = document["platforms"]
    assert isinstance(rules, dict)
    rules["sim-nitro"] = rules.pop("sim-tdx") | {"floors": "log"}
    with pytest.raises(Refused, match="sim-nitro, wanted sim-tdx"):
        tried(world, document)


def test_devices_need_rules_of_the_policy(world: World) -> None:
    devices = [
        {"architecture": "gh100", "count": 1, "drivers": ["580.95.05"], "vbios": ["96.00.DA.00.11"]},
    ]
    with pytest.raises(Refused, match="a policy without rules for devices"):
        tried(world, world.policy(), devices=devices)
