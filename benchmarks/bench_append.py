"""How fast the log takes entries: leaf hashes, tiles, index and head, durable, 4096 a transaction.

No statements: what they mean is measured elsewhere. Run: ``.venv/bin/python benchmarks/bench_append.py
[ENTRIES]`` (default 100,000; SQLite, and PostgreSQL where a server is installed). The reference of the same
run is the bare driver: it inserts the same rows into a table of the same columns with the same settings, and
computes nothing.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import create_engine, text

from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from registry.sequencer import MAX_BATCH
from registry.store import EMPTY_HEAD, Batch, Head, Store, create_store
from tests.fakes import postgres

LENGTHS = (256, 2048)


def entries(count: int, length: int) -> Iterator[bytes]:
    return (os.urandom(length) for _ in range(count))


def batches(count: int, length: int) -> Iterator[list[bytes]]:
    found = entries(count, length)
    while batch := list(islice(found, MAX_BATCH)):
        yield batch


def appended(store: Store, head: Head, batch: list[bytes]) -> Head:
    """Append as the sequencer does, and give the new head."""
    leaves = [leaf_hash(entry) for entry in batch]
    frontier, full = Frontier.parse(head.frontier).append(leaves)
    new = replace(head, size=frontier.size, root=frontier.root(), frontier=bytes(frontier))
    tiles = tuple((tile.level, tile.n, tile.data) for tile in full)
    store.write.integrate(Batch(head, new, tuple(zip(leaves, batch, strict=True)), tiles, ()))
    return new


def log_rate(store: Store, count: int, length: int) -> float:
    head = EMPTY_HEAD
    store.write.create(head)
    took = 0.0
    for batch in batches(count, length):
        before = time.perf_counter()
        head = appended(store, head, batch)
        took += time.perf_counter() - before
    assert store.read.head() == head
    return count / took


def bare_rate(store: Store, count: int, length: int) -> float:
    """Insert the rows through the driver that the store uses, prepared beforehand."""
    kind, mark = ("BLOB", "?") if store.engine.dialect.name == "sqlite" else ("BYTEA", "%s")
    with closing(store.engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE bare (idx INTEGER PRIMARY KEY, leaf_hash {kind} UNIQUE, data {kind})")
        connection.commit()
        took, first = 0.0, 0
        for batch in batches(count, length):
            rows = [(first + i, leaf_hash(entry), entry) for i, entry in enumerate(batch)]
            first += len(rows)
            before = time.perf_counter()
            if kind == "BLOB":
                cursor.execute("BEGIN IMMEDIATE")
            cursor.executemany(f"INSERT INTO bare VALUES ({mark}, {mark}, {mark})", rows)
            connection.commit()
            took += time.perf_counter() - before
    return count / took


def show(name: str, url: str, count: int, length: int, bar: int) -> None:
    with closing(create_store(url)) as store:
        found, bare = log_rate(store, count, length), bare_rate(store, count, length)
    print(
        f"{name:<10} {count} entries of {length} bytes   {found:8,.0f}/s   "
        f"{found / bare:5.2f} x bare inserts ({bare:,.0f}/s)   bar {bar:,}/s"
    )


def in_sqlite(count: int, length: int) -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        show("SQLite", f"sqlite:///{folder}/log.db", count, length, 20_000)


def in_postgresql(server: str, count: int, length: int) -> None:
    name = f"append{length}"
    engine = create_engine(server.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    show("PostgreSQL", server.format(name=name), count, length, 8_000)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for length in LENGTHS:
        in_sqlite(count, length)
    programs = postgres.programs()
    if programs is None:
        print("PostgreSQL not run here: no server is installed")
        return
    with postgres.running(programs) as server:
        for length in LENGTHS:
            in_postgresql(server, count, length)


if __name__ == "__main__":
    main()
