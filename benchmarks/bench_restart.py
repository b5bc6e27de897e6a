"""A registry's start over a long log: from ``serve`` to ``/readyz`` and to the first inclusion proof.

Run: ``.venv/bin/python benchmarks/bench_restart.py [ENTRIES]`` (default 20,000 signed releases, in SQLite;
filling takes a millisecond of processor an entry), or with the folder
of a log that ``long_log.py`` made. The log is integrated as the sequencer does it,
signed and published by one start, and started again ``TURNS`` times: signer, sequencer and two workers, as a
registry runs. The reference of the same run is the same start over a log of a few hundred entries; what it
takes is Python and its libraries.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import urllib3

from benchmarks.bench_bulk import used_seconds
from benchmarks.long_log import config_of, make
from benchmarks.synthetic import SETUP
from registry.config import Config
from registry.store import open_store
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
    word = sys.argv[1] if len(sys.argv) > 1 else "20000"
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        folder = Path(place)
        few = starts(folder / "few", 2 * SETUP)
        many = starts(folder / "many", int(word)) if word.isdigit() else of_a_log(Path(word))
    print(f"load {os.getloadavg()[0]:.1f}, {TURNS} starts each, medians")
    show(f"{int(word):,} entries" if word.isdigit() else word, many)
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
    """Make a registry in ``folder`` and start it again and again."""
    make(folder, count, datetime.now(UTC).replace(microsecond=0))
    return of_a_log(folder)


def of_a_log(folder: Path) -> list[Start]:
    """Have a registry sign and publish what it holds, and start it again and again."""
    config = config_of(folder)
    with closing(open_store(config.database_url)) as store:
        size = store.read.head().size
        started(config, folder, lambda: store.read.published_size() >= size)
    return [started(config, folder, lambda: True, index * 7919 % size) for index in range(1, TURNS + 1)]


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
