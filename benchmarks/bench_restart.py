"""A registry's start over a long log: from ``serve`` to ``/readyz`` and to the first inclusion proof.

Run: ``.venv/bin/python benchmarks/bench_restart.py [ENTRIES]`` (default 20,000 signed releases, in SQLite;
filling takes half a millisecond of processor an entry). The log is integrated as the sequencer does it,
signed and published by one start, and started again ``TURNS`` times: signer, sequencer and two workers, as a
registry runs. The reference of the same run is the same start over a log of a few hundred entries; what it
takes is Python and its libraries.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import urllib3

from benchmarks.bench_bulk import used_seconds
from benchmarks.synthetic import SETUP, entries
from quotary.tlog.merkle import leaf_hash
from registry.batch import Intervals
from registry.config import Config
from registry.sequencer import MAX_BATCH
from registry.setup import create_registry
from registry.store import EMPTY_HEAD, Store, Waiting, open_store
from tests.fakes.authority import ORIGIN
from tests.fakes.processes import Server, until

TURNS = 5
BAR = 2.0
SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the command to ``/readyz``, to the first proof after it, and of processor until then."""

    ready: float
    proven: float
    used: float


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        few, many = (starts(Path(folder) / str(size), size) for size in (2 * SETUP, count))
    print(f"load {os.getloadavg()[0]:.1f}, {TURNS} starts each, medians")
    show(f"{count:,} entries", many)
    show(f"{2 * SETUP:,} entries", few)
    ratio = statistics.median(item.used for item in many) / statistics.median(item.used for item in few)
    print(
        f"{ratio:.2f} x the processor time of the start over {2 * SETUP} entries; bar {BAR:g} s to the proof"
    )


def show(what: str, found: list[Start]) -> None:
    ready, proven, used = (
        statistics.median(getattr(item, name) for item in found) for name in ("ready", "proven", "used")
    )
    print(f"{what:<20} ready {ready:5.2f} s   first proof {proven:5.2f} s   processor {used:5.2f} s")


def starts(folder: Path, count: int) -> list[Start]:
    """Make a registry, have it publish, and start it again and again."""
    folder.mkdir()
    now = datetime.now(UTC).replace(microsecond=0)
    place = (folder / "log", ORIGIN, "sqlite:///log.db", "127.0.0.1:0")
    config = Config(*place, 0.1, 120.0, promise_seconds=600, workers=2, threads=8)
    made = entries(count, now)
    create_registry(config, [], next(made), now)
    with closing(open_store(config.database_url)) as store:
        size = fill(store, made, int(now.timestamp()))
        started(config, folder, lambda: store.read.published_size() >= size)
    return [started(config, folder, lambda: True, index * 7919 % size) for index in range(1, TURNS + 1)]


def fill(store: Store, made: Iterator[bytes], ts: int) -> int:
    """Integrate as the sequencer does; give the log's size."""
    intervals, head, waiting = Intervals(ORIGIN, store.read), EMPTY_HEAD, store.read.waiting(1)
    while batch := list(islice(made, MAX_BATCH)):
        waiting += [Waiting(0, leaf_hash(entry), entry) for entry in batch]
        store.write.integrate(found := intervals.close(head, waiting, ts))
        head, waiting = found.head, []
    return head.size


def started(config: Config, folder: Path, wanted: Callable[[], bool], index: int = 0) -> Start:
    """Start ``serve``, ask until it is ready, ask for a proof, wait for ``wanted``, and stop."""
    server, before = Server(["serve", "--dir", str(config.folder)], folder / "stderr"), time.perf_counter()
    server.start()
    try:
        with urllib3.PoolManager(retries=False) as http:
            until(lambda: answers(http, server.address + "/readyz") or None, "ready", SECONDS)
            ready = time.perf_counter() - before
            until(lambda: answers(http, f"{server.address}/api/v1/proofs/{index}") or None, "proven", SECONDS)
            found = Start(ready, time.perf_counter() - before, used_seconds(server))
            until(wanted, "published", SECONDS)
            return found
    finally:
        server.stop()


def answers(http: urllib3.PoolManager, url: str) -> bool:
    try:
        return http.request("GET", url, headers={"Connection": "close"}, timeout=SECONDS).status == 200
    except urllib3.exceptions.HTTPError:
        return False


if __name__ == "__main__":
    main()
