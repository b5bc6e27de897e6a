"""A log of any length in a folder that stays: ``.venv/bin/python benchmarks/long_log.py FOLDER ENTRIES``.

The entries are those of ``synthetic.py``, integrated as the sequencer does it: 0.9 ms of processor and 8 KB
of disk each. Nothing is signed yet; whoever opens the log first signs and publishes it.
"""

import sys
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic import entries
from quotary.tlog.merkle import leaf_hash
from registry.batch import Intervals
from registry.config import Config
from registry.sequencer import MAX_BATCH
from registry.setup import create_registry
from registry.store import EMPTY_HEAD, Waiting, open_store
from tests.fakes.authority import ORIGIN


def config_of(folder: Path) -> Config:
    """Give the registry of such a folder."""
    place = (folder / "log", ORIGIN, "sqlite:///log.db", "127.0.0.1:0")
    return Config(*place, 0.1, 120.0, promise_seconds=600, workers=2, threads=8)


def make(folder: Path, count: int, now: datetime) -> None:
    """Make a registry in a new folder and integrate ``count`` entries."""
    folder.mkdir(parents=True)
    config, made = config_of(folder), entries(count, now)
    create_registry(config, [], next(made), now)
    with closing(open_store(config.database_url)) as store:
        intervals, head, waiting = Intervals(ORIGIN, store.read), EMPTY_HEAD, store.read.waiting(1)
        while batch := list(islice(made, MAX_BATCH)):
            waiting += [Waiting(0, leaf_hash(entry), entry) for entry in batch]
            store.write.integrate(found := intervals.close(head, waiting, int(now.timestamp())))
            head, waiting = found.head, []
            print(f"{head.size:,} entries", file=sys.stderr)


def main() -> None:
    make(Path(sys.argv[1]), int(sys.argv[2]), datetime.now(UTC).replace(microsecond=0))


if __name__ == "__main__":
    main()
