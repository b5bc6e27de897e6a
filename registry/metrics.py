"""Numbers for the operator (Prometheus): what the processes count, and what the database says.

Counted values lie in files of ``PROMETHEUS_MULTIPROC_DIR``, one set a process, emptied when the registry
starts; sizes and ages are read from the database at each scrape. Labels are names of routes, witnesses and
errors: never anything that a client can choose, which would fill the disk.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from quotary.errors import QuotaryError
from quotary.tlog.tiles import TILE_WIDTH
from registry import scrub
from registry.errors import StoreUnavailable
from registry.machine import free_bytes
from registry.signing import SignerClient
from registry.store import Store
from registry.witnesses import STATES, Answer

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
UNROUTED = "none"


class Meters:
    """The counters of one process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self._requests = Counter(
            "quotary_requests", "Answers by route and status.", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "quotary_request_seconds", "Time to answer.", ("route",), registry=registry, buckets=BUCKETS
        )
        self._witness = Gauge(
            "quotary_witness_state",
            "1 for what each witness did in the newest round.",
            ("witness", "state"),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._witness_size = Gauge(
            "quotary_witness_size",
            "The newest size that each witness says it has seen.",
            ("witness",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._witness_time = Gauge(
            "quotary_witness_cosigned_time_seconds",
            "The time in each witness's newest cosignature.",
            ("witness",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._quorum = Gauge(
            "quotary_quorum_held",
            "1 if the newest round of cosignatures made the quorum.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._rounds = Histogram(
            "quotary_round_seconds", "Time of one sequencer round.", registry=registry, buckets=BUCKETS
        )
        self._failures = Counter(
            "quotary_round_failures", "Sequencer rounds that failed.", ("kind",), registry=registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def witnesses(self, answers: Iterable[tuple[Answer, int | None]]) -> None:
        """Keep what each witness did, and when it cosigned (POSIX seconds)."""
        for answer, at in answers:
            for state in STATES:
                self._witness.labels(answer.url, state).set(int(state == answer.state))
            if answer.size is not None:
                self._witness_size.labels(answer.url).set(answer.size)
            if at is not None:
                self._witness_time.labels(answer.url).set(at)

    def quorum(self, held: bool) -> None:
        self._quorum.set(int(held))

    def round_took(self, seconds: float) -> None:
        self._rounds.observe(seconds)

    def round_failed(self, kind: str) -> None:
        self._failures.labels(kind).inc()


def register(app: Flask, meters: Meters) -> None:
    """Count every answer of ``app`` under the name of its route."""

    def start() -> None:
        g.started = time.perf_counter()

    def count(response: Response) -> Response:
        took = time.perf_counter() - getattr(g, "started", time.perf_counter())
        meters.answered(request.endpoint or UNROUTED, response.status_code, took)
        return response

    app.before_request(start)
    app.after_request(count)


class StoreNumbers:
    """Sizes and ages as the database has them (a Prometheus collector)."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Give the numbers; where the database is silent, ``quotary_store_up`` 0 and nothing else."""
        try:
            numbers = self._numbers()
        except StoreUnavailable:
            numbers = {}
        yield GaugeMetricFamily(
            "quotary_store_up", "1 if the database answers.", value=1.0 if numbers else 0.0
        )
        for name, value in numbers.items():
            yield GaugeMetricFamily(f"quotary_{name}", HELP[name], value=value)

    def _numbers(self) -> dict[str, float]:
        read, now = self._store.read, self._now().timestamp()
        head, signed, published = read.head(), read.signed(), read.published()
        oldest = read.oldest_waiting()
        sizes = (
            head.size if head else 0,
            signed.size if signed else 0,
            published.size if published else 0,
        )
        return {
            "integrated_size": sizes[0],
            "signed_size": sizes[1],
            "published_size": sizes[2],
            "unsigned_entries": sizes[0] - sizes[1],
            "unpublished_entries": sizes[1] - sizes[2],
            "checkpoint_age_seconds": now - published.at if published else float("inf"),
            "waiting_entries": read.waiting_count(),
            "oldest_waiting_seconds": max(0.0, now - oldest) if oldest is not None else 0.0,
        }


class MachineNumbers:
    """What the operator's machine says at each scrape (a Prometheus collector)."""

    def __init__(self, folder: Path, signer: SignerClient) -> None:
        self._folder = folder
        self._signer = signer

    def collect(self) -> Iterator[Metric]:
        """Give the room that is left, and whether the signer answers."""
        try:
            self._signer.head()
            answers = 1.0
        except QuotaryError:
            answers = 0.0
        for name, value in (("signer_up", answers), ("free_bytes", float(free_bytes(self._folder)))):
            yield GaugeMetricFamily(f"quotary_{name}", HELP[name], value=value)


class ScrubNumbers:
    """How far the log was read again, and whether it was whole (a Prometheus collector)."""

    def __init__(self, file: Path, now: Callable[[], datetime]) -> None:
        self._file = file
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Give the numbers of the newest pass."""
        found = scrub.recall(self._file)
        age = self._now().timestamp() - found.completed if found.completed else float("inf")
        numbers = {
            "scrub_entries": float(found.bundles * TILE_WIDTH),
            "scrub_age_seconds": age,
            "scrub_damaged": float(bool(found.damage)),
        }
        for name, value in numbers.items():
            yield GaugeMetricFamily(f"quotary_{name}", HELP[name], value=value)


HELP = {
    "scrub_entries": "Entries that the pass under way has read again.",
    "scrub_age_seconds": "Since the whole log was last read again.",
    "scrub_damaged": "1 if the newest pass found other bytes than were logged.",
    "signer_up": "1 if the signer answers.",
    "free_bytes": "Room in the registry's folder.",
    "integrated_size": "Entries committed.",
    "signed_size": "Entries under the log's own signatures.",
    "published_size": "Entries under the witnesses' quorum.",
    "unsigned_entries": "Entries committed and not signed.",
    "unpublished_entries": "Entries signed and not published.",
    "checkpoint_age_seconds": "Since the published checkpoint was last cosigned by the quorum.",
    "waiting_entries": "Entries admitted and not integrated.",
    "oldest_waiting_seconds": "How long the oldest of them has waited; its promise is 600 s by default.",
}
