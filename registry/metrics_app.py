"""``/metrics`` on an address of its own, for the operator's Prometheus only."""

import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from registry import logs
from registry.config import load_config
from registry.metrics import MachineNumbers, ScrubNumbers, StoreNumbers
from registry.signing import SignerClient
from registry.store import open_store

SIGNER_SECONDS = 2.0
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(folder: Path) -> dict[str, str]:
    """Empty the counters of an earlier run, and give the environment that makes every process count there."""
    counters = folder / "metrics"
    shutil.rmtree(counters, ignore_errors=True)
    counters.mkdir(mode=0o700)
    return {VARIABLE: str(counters)}


class Counted:
    """What all processes have counted, also those that have ended (a Prometheus collector)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Give the sums; a file that a process is just making is empty, and the library fails on it."""
        files = [str(path) for path in self._folder.glob("*.db") if path.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def wsgi(folder: str) -> WSGIApplication:
    """What gunicorn calls."""
    logs.set_up()
    config = load_config(Path(folder))
    store = open_store(config.database_url)
    registry = CollectorRegistry()
    if counters := os.environ.get(VARIABLE):
        registry.register(Counted(Path(counters)))
    registry.register(StoreNumbers(store, lambda: datetime.now(UTC)))
    registry.register(ScrubNumbers(config.scrub, lambda: datetime.now(UTC)))
    registry.register(MachineNumbers(config.folder, SignerClient(config.socket, SIGNER_SECONDS)))
    return make_wsgi_app(registry)
