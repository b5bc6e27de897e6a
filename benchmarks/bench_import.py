"""Importing a log from its static files: proven and durable first, then F1; the two are timed apart.

Run: ``.venv/bin/python benchmarks/bench_import.py [ENTRIES]`` (default 20,000 signed releases, in SQLite).
The reference of the same run is the bare driver that inserts as many rows of the same length and computes
nothing.
"""

import os
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import synthetic
from bench_append import bare_rate

from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash
from registry.batch import Intervals
from registry.export import paths_at
from registry.load import derive, load_entries
from registry.public import PublicLog
from registry.recover import Folder, entries_of
from registry.sequencer import MAX_BATCH
from registry.store import EMPTY_HEAD, Head, Published, Store, Waiting, create_store
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.log import signed_note


def sequence(store: Store, count: int) -> Head:
    """Make a log of ``count`` statements and the state entries between them."""
    store.write.create(head := EMPTY_HEAD)
    intervals, made = Intervals(ORIGIN, store.read), synthetic.entries(count)
    while batch := list(islice(made, MAX_BATCH)):
        waiting = [Waiting(number, leaf_hash(entry), entry) for number, entry in enumerate(batch)]
        store.write.integrate(found := intervals.close(head, waiting, TS))
        head = found.head
    return head


def dump(store: Store, head: Head, folder: Path) -> None:
    """Write the log's files."""
    note = signed_note(Checkpoint(ORIGIN, head.size, head.root), TS)
    store.write.publish(Published(head.size, note, TS))
    public = PublicLog(store.read)
    for path in paths_at(head.size):
        target = folder / str(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(public.tile_bytes(path, head.size))
    (folder / "checkpoint").write_bytes(note)


def show(what: str, count: int, seconds: float, bare: float, bar: str) -> None:
    rate = count / seconds
    print(f"{what:<28} {rate:8,.0f}/s   {rate / bare:5.2f} x bare inserts ({bare:,.0f}/s)   {bar}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        with closing(create_store(f"sqlite:///{folder}/source.db")) as store:
            before = time.perf_counter()
            head = sequence(store, count)
            sequenced = time.perf_counter() - before
            dump(store, head, folder / "dump")
            length = sum(map(len, store.read.entries(0, 1000))) // min(1000, head.size)
        with closing(create_store(f"sqlite:///{folder}/copy.db")) as store:
            times = [time.perf_counter()]
            signed, files = Checkpoint(ORIGIN, head.size, head.root), Folder(folder / "dump")
            load_entries(store, signed, entries_of(files, head.size))
            times.append(time.perf_counter())
            assert derive(store, ORIGIN, head.size).trie_root == head.trie_root
            times.append(time.perf_counter())
        with closing(create_store(f"sqlite:///{folder}/bare.db")) as store:
            bare = bare_rate(store, head.size, length)
    print(f"{head.size} entries of about {length} bytes, load {os.getloadavg()[0]:.1f}")
    show("import, proven and durable", head.size, times[1] - times[0], bare, "bar 15,000/s")
    show("import, F1 after it", head.size, times[2] - times[1], bare, "")
    show("sequencer's own pace with F1", head.size, sequenced, bare, "signatures verified, one process")


if __name__ == "__main__":
    main()
