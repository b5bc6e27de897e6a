"""A serving enclave with the real check of itself, while its log, its floor and its host's clocks change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from enclave.boot import Machine, Setup
from enclave.lifecycle import NotServing, Phase
from enclave.runtime import Enclave, Terms
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.errors import CannotTell
from simulator.pki import PKI
from simulator.tcb import CURRENT
from simulator.tdx import Platform
from tests.enclave.test_boot_check import Served, Simulated
from tests.fakes import authority
from tests.fakes.authority import SERVICE
from tests.fakes.log import policy_bytes
from tests.fakes.machine import FLOOR, PRODUCT, SEED, World, hardware

MAX_AGE = 600


class Silent:
    """A model that is never asked."""

    context_length, rows, vocabulary = 8, 1, 8
    end_ids: frozenset[int] = frozenset()
    kernel: dict[str, int | str] = {}  # noqa: RUF012


@dataclass(slots=True)
class HostClocks:
    """Both clocks of a machine, as its host shows them."""

    at: datetime
    monotonic: float = 1000.0

    def now(self) -> datetime:
        return self.at

    def elapsed(self) -> float:
        return self.monotonic


@dataclass(slots=True)
class Reached(Served):
    """A log that can be out of reach."""

    down: bool = False
    old: bytes = b""

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        if self.down:
            raise CannotTell("no answer from the log")
        return self.old or Served.bundle(self, service, measurement_id)


@dataclass(slots=True)
class Life:
    """An enclave and everything outside it that it depends on."""

    world: World
    log: Reached
    clocks: HostClocks
    enclave: Enclave

    def forward(self, seconds: float, *, published: bool = True) -> None:
        """Let time go by everywhere; published: the log signs and its witnesses cosign meanwhile."""
        self.clocks.monotonic += seconds
        self.clocks.at += timedelta(seconds=seconds)
        if published:
            self.world.now += timedelta(seconds=seconds)
            self.world.log.close(self.world.ts)

    def logged(self, *entries: bytes) -> None:
        self.world.log.append(*entries)
        self.forward(1)
        self.enclave.poll()

    def found(self) -> tuple[Phase, str]:
        state = self.enclave.state
        return state.phase, state.code

    def admits(self) -> bool:
        keyset = self.enclave.keys.current()
        try:
            return keyset is not None and bool(self.enclave.serving(keyset, 0))
        except NotServing:
            return False


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def life(vendor: tuple[PKI, Platform]) -> Iterator[Life]:
    world = World(*vendor).publish()
    policy = Policy.parse(policy_bytes(world.policy()))
    assert policy.enclave is not None
    maker = world.log.maker
    world.release = maker.release(rows=[authority.row(SEED)], policy_sha256=policy.digest.hex())
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    log, clocks = Reached(world), HostClocks(world.now)
    setup = Setup(policy, policy.enclave, SERVICE, Simulated(world), log, ProcessMemory(), clocks)
    enclave = Enclave(Terms(SERVICE, policy.enclave, MAX_AGE), Machine(setup), clocks)
    enclave.start(lambda digest: Silent())  # type: ignore[arg-type,return-value]
    made = Life(world, log, clocks, enclave)
    assert made.found() == (Phase.READY, "")
    assert made.admits()
    yield made
    enclave.close()


def raised(life: Life) -> dict[str, object]:
    return {**FLOOR, "minimum": {**FLOOR["minimum"], "pce_svn": CURRENT.pce_svn + 1}}  # type: ignore[dict-item]


def denied(life: Life) -> dict[str, object]:
    believed = life.enclave.believed
    assert believed is not None
    return {**FLOOR, "denied_chips": sorted(believed.verdict.facts.chips)}


@pytest.mark.parametrize("floor", [raised, denied])
def test_a_floor_above_this_machine_is_the_end(
    life: Life, floor: Callable[[Life], dict[str, object]]
) -> None:
    life.logged(life.world.log.maker.floor(product=PRODUCT, floor=floor(life)))
    assert life.found() == (Phase.REFUSING, "tcb_refused")
    assert not life.admits()
    assert life.enclave.keys.current() is None


def test_a_revocation_is_the_end_whatever_the_log_says_later(life: Life) -> None:
    maker = life.world.log.maker
    life.logged(maker.revocation([SEED]))
    assert life.found() == (Phase.REFUSING, "measurement_revoked")
    again = maker.release(rows=[authority.row(SEED)])
    life.logged(again, maker.rebuild(again, {SEED: True}))
    assert life.found() == (Phase.REFUSING, "measurement_revoked")
    assert not life.admits()


def test_a_suspension_ends_by_itself(life: Life) -> None:
    life.logged(life.world.log.maker.revocation([SEED], suspend=timedelta(hours=1)))
    assert life.found() == (Phase.STALE, "measurement_suspended")
    assert not life.admits()
    life.forward(3600)
    life.enclave.poll()
    assert life.found() == (Phase.READY, "")
    assert life.admits()


def test_a_log_out_of_reach_is_waited_for_and_never_forgotten(life: Life) -> None:
    life.log.down = True
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")
    assert not life.admits()
    life.log.down = False
    life.forward(5)
    life.enclave.poll()
    assert life.admits()
    assert life.enclave.log_size() == len(life.world.log.entries)


def test_a_checkpoint_grows_too_old_where_nobody_signs_a_newer_one(life: Life) -> None:
    life.forward(MAX_AGE, published=False)
    life.enclave.poll()
    assert life.admits()
    life.forward(1, published=False)
    assert not life.admits()
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")
    life.forward(0)
    life.world.now = life.clocks.at
    life.world.log.close(life.world.ts)
    life.enclave.poll()
    assert life.admits()


def test_a_wall_clock_that_jumps_forward_stops_admission_until_it_is_right_again(life: Life) -> None:
    life.clocks.at += timedelta(minutes=20)
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")
    life.clocks.at -= timedelta(minutes=20)
    life.forward(1)
    life.enclave.poll()
    assert life.admits()


def test_a_wall_clock_that_is_set_back_a_little_makes_nothing_younger(life: Life) -> None:
    life.clocks.at -= timedelta(minutes=4)
    life.enclave.poll()
    assert life.admits()
    life.forward(MAX_AGE + 1, published=False)
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")


def test_a_wall_clock_that_is_set_back_far_believes_no_witness(life: Life) -> None:
    life.clocks.at -= timedelta(days=3)
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")


def test_a_wall_clock_that_stands_still_makes_nothing_younger(life: Life) -> None:
    life.clocks.monotonic += MAX_AGE + 1
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")


def test_a_host_that_stops_both_clocks_and_the_network_keeps_it_ready(life: Life) -> None:
    """What an enclave cannot know (docs/limitations.md, "A frozen host"): the client's own clock decides."""
    life.world.log.append(life.world.log.maker.revocation([SEED]))
    life.world.now += timedelta(days=1)
    life.world.log.close(life.world.ts)
    assert life.admits()


def test_a_smaller_log_than_before_stops_admission(life: Life) -> None:
    smaller = life.world.bundle()
    life.logged(life.world.log.maker.revocation(["another"]))
    assert life.admits()
    life.log.old = smaller
    life.enclave.poll()
    assert life.found() == (Phase.STALE, "log_stale")
