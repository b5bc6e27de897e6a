"""The machine judging itself: what a client would find, and what only the machine can check about itself."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from enclave.boot import Machine, Setup, report
from enclave.device import Evidence
from quotary.attestation.document import AttestationDocument
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail
from quotary.errors import NotInLog, Refused, Rejected
from quotary.statements.measurement import measurement_id
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.fakes import authority
from tests.fakes.authority import SERVICE
from tests.fakes.log import policy_bytes
from tests.fakes.machine import SEED, World, hardware, keyset, registers


@dataclass(slots=True)
class Simulated:
    """A device that quotes for a machine with the registers of ``seed``."""

    world: World
    seed: str = SEED

    def quote(self, report_data: bytes) -> Evidence:
        platform = self.world.platform
        return Evidence(platform.quote(registers(self.seed), report_data), platform.collateral, b"events")


@dataclass(slots=True)
class Served:
    """A log that answers for any service, and remembers what it was asked."""

    world: World
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        self.asked.append((service, measurement_id))
        if measurement_id == self.world.measurement:
            return self.world.bundle()
        return self.world.log.absence(measurement_id, ts=self.world.ts).encode()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


def machine(vendor: tuple[PKI, Platform], seed: str = SEED, **release: object) -> tuple[Machine, Served]:
    """A machine and its log; the newest release names the policy unless ``release`` says otherwise."""
    world = World(*vendor).publish()
    policy = Policy.parse(policy_bytes(world.policy()))
    assert policy.enclave is not None
    maker = world.log.maker
    named = {"policy_sha256": policy.digest.hex(), **release}
    world.release = maker.release(rows=[authority.row(SEED)], **named)
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    served = Served(world)
    clock = FixedClock(world.now)
    setup = Setup(policy, policy.enclave, SERVICE, Simulated(world, seed), served, ProcessMemory(), clock)
    return Machine(setup), served


def own(served: Served, service: str = SERVICE) -> bytes:
    return keyset(served.world.channel.public, service).encode()


def test_a_machine_that_runs_a_release_under_its_policy_may_serve(vendor: tuple[PKI, Platform]) -> None:
    found, served = machine(vendor)
    believed = found.check(own(served))
    assert believed.document.event_log == b"events"
    assert believed.verdict.release == authority.statement_id_of(served.world.release)
    assert served.asked == [(SERVICE, served.world.measurement)]
    last = believed.checks[-1]
    assert (last.name, last.outcome, last.found) == ("policy", "ok", found.setup.policy.digest.hex())
    assert report(believed).startswith(believed.verdict.headline)


def test_a_policy_that_the_release_does_not_name_is_refused(vendor: tuple[PKI, Platform]) -> None:
    found, served = machine(vendor, policy_sha256="05" * 32)
    with pytest.raises(Refused, match="which the release names") as caught:
        found.check(own(served))
    assert caught.value.check == "policy"


def test_a_release_of_another_service_is_refused(vendor: tuple[PKI, Platform]) -> None:
    # The keys and the release are of the same service, and it is not the one that this machine is to run.
    found, served = machine(vendor)
    other = Machine(replace(found.setup, service="search"))
    with pytest.raises(Refused) as caught:
        other.check(own(served))
    assert (caught.value.check, caught.value.found, caught.value.wanted) == ("service", SERVICE, "search")


def test_keys_of_another_service_are_rejected(vendor: tuple[PKI, Platform]) -> None:
    found, served = machine(vendor)
    with pytest.raises(Rejected, match="keys for search"):
        found.check(own(served, "search"))


def test_an_image_that_nobody_released_is_not_in_the_log(vendor: tuple[PKI, Platform]) -> None:
    found, served = machine(vendor, seed="unknown")
    with pytest.raises(NotInLog):
        found.check(own(served))
    assert served.asked == [(SERVICE, authority.measurement("unknown"))]


def test_a_rehearsal_leaves_its_checks_behind_when_it_is_refused(vendor: tuple[PKI, Platform]) -> None:
    found, served = machine(vendor)
    served.world.log.append(served.world.log.maker.revocation(served.world.release))
    served.world.log.close(served.world.ts)
    trail = Trail()
    with pytest.raises(Refused, match="revoked"):
        found.rehearse(trail)
    assert (trail.checks[-1].name, trail.checks[-1].outcome) == ("status", "failed")


def test_the_same_evidence_is_judged_again_by_a_new_bundle(vendor: tuple[PKI, Platform]) -> None:
    found, served = machine(vendor)
    believed = found.check(own(served))
    shown = AttestationDocument.parse(found.attest(believed, bytes(32)))
    assert (shown.devices, shown.device_collateral, shown.keyset) == (None, {}, believed.document.keyset)
    again = found.renew(believed)
    assert again.document == believed.document
    identity = measurement_id("sim-tdx", believed.verdict.facts.registers)
    assert served.asked == [(SERVICE, identity), (SERVICE, identity)]
    late = Machine(replace(found.setup, clock=FixedClock(served.world.now + timedelta(seconds=901))))
    with pytest.raises(Refused, match="age"):
        late.renew(believed)
