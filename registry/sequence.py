"""The sequencer as a process: one at a time, one round each publish interval, until SIGTERM."""

import logging
import signal
import threading
import time
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, datetime

from quotary.errors import CannotTell, Malformed
from quotary.garbage import collect_rarely
from quotary.net.transport import HTTP
from quotary.tlog.policy import NO_QUORUM, TlogPolicy
from registry.clock import WitnessedClock
from registry.config import Config
from registry.errors import (
    ClockRefused,
    Damaged,
    NotPublished,
    SignerUnavailable,
    StoreFull,
    StoreUnavailable,
)
from registry.export import Exporter
from registry.lag import History
from registry.lock import only_one
from registry.metrics import Meters
from registry.public import PublicLog
from registry.publisher import Publisher
from registry.scrub import Scrubber
from registry.seal import Seal, take_key
from registry.sequencer import Sequencer
from registry.signing import SignerClient
from registry.store import Lease, Store, open_store
from registry.witnesses import Rounds

log = logging.getLogger("registry")

GUARD_RETRY_SECONDS = 1.0
STANDBY_SECONDS = 1.0
# At 100,000 entries a second and core, 200 million entries are read in twelve hours.
SCRUB_SHARE = 0.05
# Workers write into the same database: a round that takes longer than an interval is not followed at once.
LEAST_PAUSE_SHARE = 0.1


def run_sequencer(config: Config, key: int | None = None) -> None:
    """Take over the log and keep it going; raises what must not be retried (rolled back, head moved).

    key: descriptor of the key of the judge's seals; without one nothing that a judge says is believed
    """
    seal = None if key is None else take_key(key)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    if policy.quorum == NO_QUORUM:
        log.warning("quorum.none", extra={"why": "nobody but this log vouches for its history"})
    with only_sequencer(config):
        led = _await_leadership(config, stop)
        if led is not None:
            with closing(led[0]) as store, closing(led[1]) as lease:
                _run(config, policy, store, lease, stop, seal)
    log.info("sequencer.stopped")


class Loop:
    """Rounds; an error that says nothing about rollback ends the round, and the next one reads everything
    again.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        publisher: Publisher,
        exporter: Exporter,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._sequencer = sequencer
        self._publisher = publisher
        self._exporter = exporter
        self._stale = False
        self._exported = False

    def round(self) -> None:
        """Integrate, sign, publish and export, as far as each is possible now."""
        started = time.perf_counter()
        try:
            self._grow()
            if self._publisher.publish() is not None or not self._exported:
                self._export()
        except (StoreFull, StoreUnavailable, SignerUnavailable, ClockRefused, Damaged) as error:
            self._stale = True
            self._meters.round_failed(type(error).__name__)
            log.error("round.failed", extra={"why": str(error), "kind": type(error).__name__})
        except BaseException:
            self._stale = True
            raise
        finally:
            self._meters.round_took(time.perf_counter() - started)

    def _grow(self) -> None:
        """Integrate and sign; where the clock is refused, ask the witnesses once more what time it is."""
        if self._stale:
            self._sequencer.load()
            self._stale = False
        self._publisher.settle()
        try:
            self._sequencer.integrate()
            self._sequencer.sign()
        except ClockRefused:
            self._publisher.ask_the_time()
            raise

    def _export(self) -> None:
        """Write the public folder; where that fails the log goes on, and the next round tries again."""
        try:
            self._exported = self._exporter.export()
        except (NotPublished, OSError) as error:
            self._exported = False
            log.warning("export.failed", extra={"why": str(error)})


def _await_leadership(config: Config, stop: threading.Event) -> tuple[Store, Lease] | None:
    """Open the database and become the one that leads; None where the signal came first.

    On a database that several machines share this waits, while another one leads and while a fail-over lasts.
    """
    while not stop.is_set():
        store: Store | None = None
        try:
            store = open_store(config.database_url)
            if (lease := store.lead()) is not None:
                log.info("sequencer.leads")
                return store, lease
            log.info("sequencer.stands_by")
            store.close()
        except StoreUnavailable as error:
            if not config.shares_database:
                raise
            log.error("sequencer.waits", extra={"why": str(error)})
            if store is not None:
                store.close()
        stop.wait(STANDBY_SECONDS)
    return None


def _run(
    config: Config,
    policy: TlogPolicy,
    store: Store,
    lease: Lease,
    stop: threading.Event,
    seal: Seal | None,
) -> None:
    clock = WitnessedClock(_now)
    sequencer = Sequencer(store, config.origin, SignerClient(config.socket), clock, seal)
    rounds = Rounds(HTTP(), [witness.url for witness in policy.witnesses.values()], policy.logs)
    meters = Meters()
    history = History(config.cosignatures)
    publisher = Publisher(store, rounds, policy, clock, config.refresh_seconds, meters, history)
    exporter = Exporter(PublicLog(store.read), config.public)
    sequencer.take_over()
    collect_rarely()
    if _guard(config, sequencer, publisher, lease, stop):
        loop = Loop(sequencer, publisher, exporter, meters)
        scrubber = Scrubber(store.read, config.public, config.scrub, _now)
        with _uploading(config, store):
            while not stop.is_set():
                started = time.monotonic()
                lease.check()
                policy = renewed(config, policy, publisher)
                loop.round()
                scrubber.work(SCRUB_SHARE * config.publish_interval_seconds)
                stop.wait(pause_after(time.monotonic() - started, config.publish_interval_seconds))


def pause_after(took: float, interval: float) -> float:
    """Give the seconds to wait after a round that took so long, so that one begins each interval."""
    return max(LEAST_PAUSE_SHARE * interval, interval - took)


def _uploading(config: Config, store: Store) -> AbstractContextManager[None]:
    if not config.upload:
        return nullcontext()
    # Only those who use it pay for loading it.
    from registry.upload import Upload, open_bucket, uploading

    upload = Upload(PublicLog(store.read), open_bucket(config.upload))
    return uploading(upload, max(1.0, config.publish_interval_seconds))


def renewed(config: Config, policy: TlogPolicy, publisher: Publisher) -> TlogPolicy:
    """Read the log's own policy again, and let the publisher follow it where it has changed."""
    text = config.policy.read_text("utf-8")
    if text == policy.text:
        return policy
    try:
        found = TlogPolicy.parse(text)
    except Malformed as error:
        log.error("policy.ignored", extra={"why": str(error)})
        return policy
    publisher.follow(found)
    log.info("policy.changed", extra={"quorum": found.quorum, "witnesses": sorted(found.witnesses)})
    return found


def _guard(
    config: Config, sequencer: Sequencer, publisher: Publisher, lease: Lease, stop: threading.Event
) -> bool:
    """Before the first signature: neither the signer nor a witness may be ahead of the database."""
    while not stop.is_set():
        lease.check()
        try:
            sequencer.check_signer()
            publisher.check_witnesses(config.origin)
        except (CannotTell, ClockRefused) as error:
            log.error("guard.waiting", extra={"why": str(error)})
            stop.wait(GUARD_RETRY_SECONDS)
        else:
            return True
    return False


def only_sequencer(config: Config) -> AbstractContextManager[None]:
    """Hold the lock of a registry's folder, or raise ``Usage`` where a sequencer runs over it."""
    return only_one(config.folder / "sequencer.lock", "sequencer")


def _now() -> datetime:
    return datetime.now(UTC)
