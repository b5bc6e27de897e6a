"""A network in this process: real witnesses behind made-up addresses, and faults by host."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from flask.testing import FlaskClient

from quotary.errors import CannotTell
from quotary.net.transport import Reply, Request, Stream
from registry.config import Config
from registry.setup import WitnessLine, create_registry, write_policy
from registry.witness_app import create_app, create_witness
from tests.fakes.authority import NOW, ORIGIN, Authority
from tests.fakes.inprocess import Clock, Local, config_of, local

URLS = ("https://w0.example.org", "https://w1.example.org", "https://w2.example.org")


class Network:
    """Leads to applications by their host; a host that is away does not answer.

    clock: what the witnesses' clocks show; ``local(clock=...)`` takes the same one, or the log has its own
    """

    def __init__(self) -> None:
        self.apps: dict[str, FlaskClient] = {}
        self.away: set[str] = set()
        self.instead: dict[str, Reply] = {}
        self.asked: list[tuple[str, str]] = []
        self.clock = Clock()

    def send(self, request: Request) -> Reply:
        url = next(url for url in URLS if request.url.startswith(url))
        self.asked.append((request.method, request.url))
        if url in self.away:
            raise CannotTell(f"no answer from {url}")
        if request.url in self.instead or url in self.instead:
            return self.instead.get(request.url) or self.instead[url]
        answer = self.apps[url].open(request.url.removeprefix(url), method=request.method, data=request.body)
        return Reply(answer.status_code, {"content-type": answer.content_type}, answer.data)

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        raise NotImplementedError


def create_witnessed(folder: Path, network: Network) -> Config:
    """Make a registry in ``folder / "log"`` with three witnesses, two of which must cosign."""
    config = config_of(folder / "log")
    public = create_registry(config, [], Authority().genesis(), NOW)
    lines = []
    for number, url in enumerate(URLS):
        key = create_witness(folder / url[8:], f"w{number}.example.org", [public.log[0]])
        lines.append(WitnessLine(url, key.verifier))
    write_policy(config.policy, public, lines, 2)
    connect(folder, network)
    return config


def connect(folder: Path, network: Network) -> None:
    """Start the witnesses anew, from their folders."""
    for url in URLS:
        network.apps[url] = create_app(str(folder / url[8:]), network.clock).test_client()


@contextmanager
def witnessed(folder: Path, network: Network) -> Iterator[Local]:
    """Run a log with three witnesses, two of which must cosign, that has published once."""
    create_witnessed(folder, network)
    with local(folder, transport=network, clock=network.clock) as found:
        found.publisher.check_witnesses(ORIGIN)
        found.loop.round()
        yield found
