"""Bars A20 to A23: witnesses that lie or stall, quorums that break, a log behind its witnesses, clocks that jump."""

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client import generate_latest

from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Limits, Reply, Request, Stream
from quotary.tlog.note import SigningKey
from quotary.tlog.policy import TlogPolicy
from registry.panel import MOST_WAIT_SECONDS
from registry.setup import WitnessLine, create_registry, write_policy
from registry.witness_app import create_app, create_witness
from tests.fakes.authority import NOW, ORIGIN, Authority
from tests.fakes.inprocess import Clock, Local, config_of, local
from tests.fakes.log import witness_key
from tests.hostile.witnesses import BEHAVIOURS, HostileWitness

HONEST = ("https://h0.example.org", "https://h1.example.org")
MOST_DELAY_SECONDS = 1.0
MOST_GROWTH = 8 << 20


def url_of(name: str) -> str:
    return f"https://{name.replace(' ', '-')}.example.net"


@dataclass(slots=True)
class Network:
    """Leads to two honest witnesses in this process, and over real sockets to the hostile one that is at work."""

    clock: Clock = field(default_factory=Clock)
    apps: dict[str, FlaskClient] = field(default_factory=dict)
    hostile: dict[str, str] = field(default_factory=dict)
    http: HTTP = field(default_factory=HTTP)

    def send(self, request: Request) -> Reply:
        url = next((url for url in (*self.apps, *self.hostile) if request.url.startswith(url)), None)
        if url is None:
            raise CannotTell(f"no answer from {request.url}")
        path = request.url.removeprefix(url)
        if url in self.hostile:
            limits = Limits(0.5, 1.0, 3.0, request.limits.length)
            return self.http.send(
                Request(self.hostile[url] + path, request.method, request.body, limits=limits)
            )
        answer = self.apps[url].open(path, method=request.method, data=request.body)
        return Reply(answer.status_code, {"content-type": answer.content_type}, answer.data)

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Local]:
    """A log whose quorum is two of many: two honest witnesses, and one for each way to be hostile."""
    folder = tmp_path_factory.mktemp("witnesses")
    config = config_of(folder / "log")
    public = create_registry(config, [], Authority().genesis(), NOW)
    lines = []
    for number, url in enumerate(HONEST):
        key = create_witness(folder / url[8:], f"h{number}.example.org", [public.log[0]])
        network.apps[url] = create_app(str(folder / url[8:]), network.clock).test_client()
        lines.append(WitnessLine(url, key.verifier))
    lines += [WitnessLine(url_of(name), key_of(name).verifier) for name in BEHAVIOURS]
    write_policy(config.policy, public, lines, 2)
    with local(folder, transport=network, clock=network.clock) as found:
        found.publisher.check_witnesses(ORIGIN)
        found.append(found.authority.allocation(), found.authority.delegation())
        yield found


def key_of(name: str) -> SigningKey:
    return witness_key(f"{name.replace(' ', '-')}.example.net")


def at_work(name: str, network: Network) -> HostileWitness:
    behaviour, _ = BEHAVIOURS[name]
    return HostileWitness(behaviour, key_of(name), lambda: int(network.clock().timestamp()))


def state_of(log: Local, name: str) -> str:
    """What the log's own numbers say that the witness did last."""
    numbers = generate_latest(log.meters.registry).decode()
    (found,) = re.findall(
        rf'quotary_witness_state{{state="([a-z-]+)",witness="{re.escape(url_of(name))}"}} 1.0', numbers
    )
    return str(found)


def cosigners(log: Local) -> set[str]:
    published = log.store.read.published()
    assert published is not None
    policy = TlogPolicy.parse(log.config.policy.read_text("utf-8"))
    return set(policy.verify(published.note, now=int(log.clock().timestamp())).cosignatures)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a20_a_hostile_witness_delays_publishing_by_less_than_a_second(
    log: Local, network: Network, name: str
) -> None:
    _, state = BEHAVIOURS[name]
    slug = name.replace(" ", "-")
    quiet, memory = grown(log, f"quiet-{slug}"), resident()
    with at_work(name, network).running() as hostile:
        network.hostile = {url_of(name): hostile.address}
        took = grown(log, slug)
        network.hostile = {}
        assert hostile.asked >= 1
    assert took <= 3 * quiet + MOST_DELAY_SECONDS
    assert state_of(log, name) == state
    assert resident() - memory <= MOST_GROWTH


def grown(log: Local, name: str) -> float:
    """Seconds that a release took to be published under the honest witnesses' quorum."""
    log.clock.forward(1)
    before, started = log.store.read.published_size(), time.monotonic()
    log.append(log.authority.release(name))
    assert log.store.read.published_size() == before + 2
    assert cosigners(log) == {"h0.example.org", "h1.example.org"}
    return time.monotonic() - started


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


def test_a20_all_hostile_witnesses_at_once_stop_nothing(log: Local, network: Network) -> None:
    with ExitStack() as stack:
        for name in BEHAVIOURS:
            hostile = stack.enter_context(at_work(name, network).running())
            network.hostile[url_of(name)] = hostile.address
        took = [grown(log, f"all-{number}") for number in range(3)]
        network.hostile = {}
    quiet = grown(log, "all-quiet")
    assert max(took) <= 3 * quiet + MOST_WAIT_SECONDS + MOST_DELAY_SECONDS
