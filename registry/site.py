"""What a worker process holds: made once, handed to every blueprint."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from registry.admission import admission_of
from registry.config import Config
from registry.desk import Desk, Judge
from registry.identity import PublicKeys, read_public
from registry.public import PublicLog
from registry.quota import Quota
from registry.signing import SignerClient
from registry.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Site:
    """The registry as its HTTP routes see it."""

    config: Config
    store: Store
    public: PublicLog
    desk: Desk
    signer: SignerClient
    addresses: Quota
    now: Callable[[], datetime]

    @property
    def keys(self) -> PublicKeys:
        """Read the log's public keys; a rotation replaces them while workers run."""
        return read_public(self.config.keys / "public")

    def policy_text(self) -> str:
        """Give the log's own tlog-policy, byte for byte."""
        return self.config.policy.read_text("utf-8")


def open_site(config: Config, now: Callable[[], datetime], judge: Judge | None = None) -> Site:
    """Open the database for one worker; without a judge this process admits by itself."""
    store = open_store(config.database_url)
    signer = SignerClient(config.socket)
    desk = Desk(judge or admission_of(config, store, now), signer, config.promise_seconds)
    addresses = Quota("address", config.address_burst, config.address_per_second)
    return Site(config, store, PublicLog(store.read), desk, signer, addresses, now)
