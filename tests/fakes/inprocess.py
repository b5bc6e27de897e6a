"""A registry inside the test: real store, signer, sequencer and routes, a clock that the test moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from flask.testing import FlaskClient

from quotary.net.transport import Transport
from quotary.tlog.policy import TlogPolicy
from quotary.token.place import TokenPlace
from registry.app import create_app
from registry.clock import WitnessedClock
from registry.config import Config
from registry.export import Exporter
from registry.identity import load_log_keys
from registry.lag import History
from registry.metrics import Meters
from registry.public import PublicLog
from registry.publisher import Publisher
from registry.sequence import Loop
from registry.sequencer import Sequencer
from registry.setup import create_registry
from registry.signer import Signer
from registry.signing import SignerClient
from registry.store import Store, open_store
from registry.witnesses import Rounds
from tests.fakes.authority import NOW, ORIGIN, Authority
from tests.fakes.signer import served


@dataclass(slots=True)
class Clock:
    """A time that only moves when told."""

    at: datetime = NOW
    elapsed: float = 0.0

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        """Let time go by, on the wall and in the machine."""
        self.at += timedelta(seconds=seconds)
        self.elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the clock on the wall."""
        self.at += timedelta(seconds=seconds)


@dataclass(slots=True)
class Local:
    """One registry; ``round`` does what the sequencer process does once an interval."""

    config: Config
    store: Store
    signer: SignerClient
    clock: Clock
    sequencer: Sequencer
    loop: Loop
    publisher: Publisher
    rounds: Rounds
    meters: Meters
    authority: Authority = field(default_factory=Authority)

    def client(self) -> FlaskClient:
        return create_app(self.config, now=self.clock).test_client()

    def append(self, *entries: bytes) -> None:
        """Let entries wait without admission, and run a round."""
        from quotary.tlog.merkle import leaf_hash

        self.store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
        self.loop.round()


def config_of(folder: Path, database: str = "sqlite:///log.db") -> Config:
    return Config(folder, ORIGIN, database, "127.0.0.1:0", 0.1, 120.0, 600, 1, 4)


@contextmanager
def local(
    folder: Path,
    *,
    database: str = "sqlite:///log.db",
    transport: Transport | None = None,
    store: Store | None = None,
    token: TokenPlace | None = None,
    clock: Clock | None = None,
) -> Iterator[Local]:
    """Make a registry with the fakes' genesis and open it; witnesses only where ``transport`` leads to them."""
    config = config_of(folder / "log", database)
    authority = Authority()
    if not config.folder.exists():
        create_registry(config, [], authority.genesis(), NOW, token)
    else:
        authority.genesis()
    memory = config.keys / "signed-head.json"
    clock = clock or Clock()
    signer = Signer(ORIGIN, lambda: load_log_keys(config.keys, ORIGIN), memory, clock)
    with served(signer, config.socket) as client:
        opened = store or open_store(config.database_url)
        yield assemble(config, opened, client, clock, transport, authority)
        opened.close()


def assemble(
    config: Config,
    store: Store,
    signer: SignerClient,
    clock: Clock,
    transport: Transport | None,
    authority: Authority,
) -> Local:
    """Put a registry together around a store and a signer, and take it over."""
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    witnessed = WitnessedClock(clock, elapsed=lambda: clock.elapsed)
    sequencer = Sequencer(store, config.origin, signer, witnessed)
    urls = [witness.url for witness in policy.witnesses.values()] if transport else []
    rounds = Rounds(transport, urls, policy.logs) if transport else Rounds(_nobody(), [], ())
    meters = Meters()
    history = History(config.cosignatures)
    publisher = Publisher(store, rounds, policy, witnessed, config.refresh_seconds, meters, history)
    loop = Loop(sequencer, publisher, Exporter(PublicLog(store.read), config.public))
    sequencer.take_over()
    return Local(config, store, signer, clock, sequencer, loop, publisher, rounds, meters, authority)


def _nobody() -> Transport:
    from quotary.net.transport import Offline

    return Offline()
