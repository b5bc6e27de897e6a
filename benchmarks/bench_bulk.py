"""How fast signed statements come in as NDJSON batches: judged, durable, and integrated with F1.

A registry as it runs (signer, sequencer, two workers; SQLite, synchronous FULL) gets releases with one
signature each from two callers, each for services of its own; measured is the time from the first byte sent
until the head counts all of them, and all must have had effect. Run: ``.venv/bin/python
benchmarks/bench_bulk.py [ENTRIES]`` (default 40,000). The reference of the same run is what cannot be left
out: every signature verified bare, once for a worker and once for the sequencer, and every entry inserted
bare, once to wait and once to stay, in two processes at once as the registry's are.
"""

import http.client
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pysqlite3.dbapi2 as pysqlite3

from benchmarks.synthetic import BUILDER, FIRST_SEQUENCE, SERVICES, SETUP, entries, service
from quotary import ed25519
from quotary.statements.envelope import Envelope, pae, raw_public_key
from quotary.tlog.merkle import leaf_hash
from registry.config import Config
from registry.setup import create_registry
from registry.store import Store, open_store
from tests.fakes.authority import ORIGIN, key
from tests.fakes.processes import Server, until

LINES = 2000
CALLERS = 2
PLACES = range(CALLERS)
BAR = 4000
MANY = 10**9


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    made = list(entries(SETUP + count))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        seconds, used = registry_seconds(Path(folder), made)
        bare, bare_used = bare_seconds(Path(folder), made[SETUP:])
    print(
        f"bulk {count} releases   {count / seconds:6,.0f}/s   bar {BAR:,}/s   load {os.getloadavg()[0]:.1f}"
    )
    print(f"{bare / seconds:.2f} x bare verifications and inserts by two processes ({count / bare:,.0f}/s)")
    print(f"processor time an entry {used / count * 1e6:.0f} us, bare {bare_used / count * 1e6:.0f} us")


def registry_seconds(folder: Path, made: Sequence[bytes]) -> tuple[float, float]:
    """Give the time of the releases, and the processor time of all processes in it."""
    place = (folder / "log", ORIGIN, "sqlite:///log.db", "127.0.0.1:0")
    limits = (MANY, 1e6, MANY, 1e6)
    config = Config(*place, 0.1, 120.0, 600, 2, 16, *limits)
    create_registry(config, [], made[0], datetime.now(UTC))
    server = Server(["serve", "--dir", str(config.folder)], folder / "log.stderr").start()
    with closing(open_store(config.database_url)) as store:
        try:
            reach(store, 2)
            post(server.address, b"\n".join(made[1:SETUP]))
            reach(store, SETUP + 2)
            before, started = used_seconds(server), time.perf_counter()
            with ThreadPoolExecutor(CALLERS) as pool:
                list(
                    pool.map(lambda caller: post_all(server.address, made[SETUP + caller :: CALLERS]), PLACES)
                )
            reach(store, len(made))
            took = time.perf_counter() - started, used_seconds(server) - before
            check_effect(store, len(made))
            return took
        finally:
            server.stop()


def post_all(address: str, made: Sequence[bytes]) -> None:
    """Post one caller's entries in their order; whose services are nobody else's."""
    for start in range(0, len(made), LINES):
        post(address, b"\n".join(made[start : start + LINES]))


def check_effect(store: Store, count: int) -> None:
    """Look whether the newest release of each service is the last one posted, so that none was overtaken."""
    head = store.read.head()
    assert head is not None
    newest = range(max(SETUP, count - SERVICES), count)
    wanted = {service(index % SERVICES): FIRST_SEQUENCE + index for index in newest}
    assert store.read.newest_sequences(list(wanted), "release", head.size) == wanted


def post(address: str, body: bytes) -> None:
    """Post a batch; where too much waits, come again, as the answer demands."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    while True:
        connection.request("POST", "/api/v1/batches", body, {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 429:
            break
        time.sleep(0.1)
    connection.close()
    assert answer.status == 200, text[:300]
    assert text.count(b'"status":202') == body.count(b"\n") + 1, text[:300]


def reach(store: Store, statements: int) -> None:
    """Wait until so many statements are integrated."""

    def reached() -> bool:
        head = store.read.head()
        return head is not None and head.size >= statements and store.read.waiting_count() == 0

    until(reached, f"{statements} statements in the log", seconds=600)


def used_seconds(server: Server) -> float:
    """Give the processor time of a process and its descendants."""
    assert server.process is not None
    waiting, total = [server.process.pid], 0.0
    while waiting:
        pid = waiting.pop()
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for task in Path(f"/proc/{pid}/task").iterdir():
            waiting += map(int, (task / "children").read_text("ascii").split())
    return total


def bare_seconds(folder: Path, made: Sequence[bytes]) -> tuple[float, float]:
    """Give wall and processor time of the bare work, half of it in each of two processes."""
    with get_context("fork").Pool(CALLERS) as pool:
        shares = [(folder / f"bare{place}.db", made[place::CALLERS]) for place in PLACES]
        took = pool.starmap(bare_work, shares, 1)
    return max(wall for wall, _ in took), sum(used for _, used in took)


def bare_work(database: Path, made: Sequence[bytes]) -> tuple[float, float]:
    public = raw_public_key(key(BUILDER))
    signed = [(item.signatures[0].sig, pae(item.payload)) for item in map(Envelope.parse, made)]
    rows = [(index, leaf_hash(entry), entry) for index, entry in enumerate(made)]
    with closing(pysqlite3.connect(str(database), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        for table in ("waiting", "entry"):
            connection.execute(
                f"CREATE TABLE {table} (idx INTEGER PRIMARY KEY, leaf_hash BLOB UNIQUE, data BLOB)"
            )
        started, used = time.perf_counter(), time.process_time()
        for table in ("waiting", "entry"):
            for signature, message in signed:
                ed25519.verify(public, signature, message)
            for start in range(0, len(rows), LINES):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows[start : start + LINES])
                connection.execute("COMMIT")
        return time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    main()
