"""``quotary policy simulate``: would an enclave under this policy boot, as far as its log decides?"""

import json
from pathlib import Path

import pytest

from quotary.client.policy import Policy
from tests.cli.conftest import Live, Run
from tests.fakes import authority
from tests.fakes.enclave import FakeEnclave, over_http
from tests.fakes.log import policy_bytes
from tests.fakes.machine import SEED


@pytest.fixture
def released(live: Live) -> Live:
    """A world whose newest release was made for the policy."""
    maker, world = live.world.log.maker, live.world
    digest = Policy.parse(live.policy.read_bytes()).digest.hex()
    world.release = maker.release(rows=[authority.row(SEED)], policy_sha256=digest)
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    return live


def bundle(live: Live) -> Path:
    return live.file("release.bundle", live.world.bundle())


def test_a_release_for_this_policy_would_boot(run: Run, released: Live) -> None:
    ran = run("policy", "simulate", released.policy, "--simulation", "--bundle", bundle(released))
    assert ran.code == 0, ran.err
    assert "would boot, as far as the log decides" in ran.out
    assert "SIMULATION" in ran.out
    ran = run("policy", "simulate", released.policy, "--simulation", "--bundle", bundle(released), "--json")
    checks = {check["name"]: check["outcome"] for check in json.loads(ran.out)["checks"]}
    assert (checks["enclave"], checks["policy"], checks["platform"], checks["status"]) == ("ok",) * 4
    assert (checks["evidence"], checks["tcb floor"]) == ("not checked", "not checked")


def test_the_bundle_may_come_from_the_log(run: Run, released: Live) -> None:
    words = ("policy", "simulate", released.policy, "--simulation")
    with over_http(FakeEnclave(released.world)) as url:
        ran = run(*words, "--url", url, "--measurement", released.world.measurement.hex())
        assert ran.code == 0, ran.err
        ran = run(*words, "--url", url, "--measurement", "00" * 32)
        assert ran.code == 12
    assert run(*words).code == 2


def test_a_release_for_another_policy_would_not(run: Run, live: Live) -> None:
    ran = run("policy", "simulate", live.policy, "--simulation", "--bundle", bundle(live))
    assert ran.code == 11
    assert "as the release names" in ran.err


def test_a_clients_policy_would_not(run: Run, released: Live) -> None:
    document = json.loads(released.policy.read_bytes())
    del document["enclave"]
    path = released.file("client.json", policy_bytes(document))
    ran = run("policy", "simulate", path, "--simulation", "--bundle", bundle(released))
    assert ran.code == 11
    assert "no member enclave" in ran.err


def test_a_revoked_release_would_not(run: Run, released: Live) -> None:
    world = released.world
    world.log.append(world.log.maker.revocation(world.release))
    world.log.close(world.ts)
    ran = run("policy", "simulate", released.policy, "--simulation", "--bundle", bundle(released))
    assert ran.code == 11
    assert "revoked" in ran.err


def test_simulated_evidence_is_not_tried_unasked(run: Run, released: Live) -> None:
    ran = run("policy", "simulate", released.policy, "--bundle", bundle(released))
    assert ran.code == 11
    assert "simulation" in ran.err
