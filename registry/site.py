"""What a worker process holds: made once, handed to every blueprint."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from registry.admission import Admission
from registry.config import Config
from registry.identity import PublicKeys, read_public
from registry.public import PublicLog
from registry.quota import Quota
from registry.replica import Replica
from registry.signing import SignerClient
from registry.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Site:
    """The registry as its HTTP routes see it."""

    config: Config
    store: Store
    public: PublicLog
    admission: Admission
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


def open_site(config: Config, now: Callable[[], datetime]) -> Site:
    """Open the database and the signer's socket for one worker."""
    store = open_store(config.database_url)
    signer = SignerClient(config.socket)
    replica = Replica(config.origin, store.read)
    builders = Quota("builder", config.builder_burst, config.builder_per_second)
    admission = Admission(store, replica, signer, now, config.promise_seconds, builders)
    addresses = Quota("address", config.address_burst, config.address_per_second)
    return Site(config, store, PublicLog(store.read), admission, signer, addresses, now)
