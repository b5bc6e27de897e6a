"""How fast a whole log is read again and hashed, beside ``hashlib`` over the same bytes (bar A12).

Run: ``.venv/bin/python benchmarks/bench_scrub.py [entries]``
"""

import hashlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quotary.tlog.merkle import leaf_hash
from registry.scrub import Scrubber
from tests.fakes.inprocess import local

LENGTH = 700
CHUNK = 20_000


def bare(entries: list[bytes]) -> float:
    """Seconds for one leaf hash and one node hash an entry, and nothing else."""
    started = time.perf_counter()
    for entry in entries:
        digest = hashlib.sha256(b"\x00" + entry).digest()
        hashlib.sha256(b"\x01" + digest + digest).digest()
    return time.perf_counter() - started


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    entries = [(b"%d " % i).ljust(LENGTH, b".") for i in range(count)]
    with tempfile.TemporaryDirectory() as folder, local(Path(folder)) as log:
        for start in range(0, count, CHUNK):
            some = entries[start : start + CHUNK]
            log.store.write.enqueue([(leaf_hash(entry), entry) for entry in some], 0)
            log.loop.round()
        scrubber = Scrubber(log.store.read, log.config.public, log.config.scrub, log.clock)
        before = time.process_time()
        size, seconds = scrubber.run(lambda *_: None)
        core = time.process_time() - before
    reference = min(bare(entries) for _ in range(3))
    print(
        f"scrub of {size} entries of {LENGTH} bytes: {size / core:,.0f} entries/s and core "
        f"({seconds:.1f} s), {reference / core * size / count:.2f} x hashlib ({count / reference:,.0f}/s)   "
        "bar 100,000"
    )


if __name__ == "__main__":
    main()
