"""A11: one flipped bit, on the disk or in memory, is found before it is served or signed."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from quotary.errors import Malformed, QuotaryError
from quotary.tlog.merkle import leaf_hash
from registry.bundles import Bundles
from registry.errors import Damaged
from registry.identity import load_log_keys
from registry.memory import recall
from registry.public import PublicLog
from registry.signer import Signer
from registry.store import Batch, Store, Writer, open_store
from tests.fakes.authority import NOW, ORIGIN, SERVICE, measurement
from tests.fakes.history import fsck
from tests.fakes.inprocess import Local, local

HASHED = {
    "entry": ("idx", ("data", "leaf_hash")),
    "tile": ("rowid", ("data",)),
    "node": ("rowid", ("data", "hash")),
    "record": ("rowid", ("data",)),
    "head": ("id", ("root", "frontier", "trie_root")),
    "checkpoint": ("size", ("root",)),
}
TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger'"


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    """A log of some 300 entries, with a tile that is full and a status map."""
    with local(tmp_path) as found:
        made = found.authority
        found.append(made.allocation(), made.delegation(), made.floor(), made.release("r1"))
        found.append(*(b'{"entry":%d}' % i for i in range(290)))
        found.append(made.revocation(["r1"]))
        yield found


def flips(log: Local, count: int, seed: int = 11) -> Iterator[tuple[str, str, object, bytes, bytes]]:
    """Give ``count`` cells of the database with one bit changed in each: table, column, key, before, after."""
    source = random.Random(seed)
    columns = [(table, key, name) for table, (key, names) in HASHED.items() for name in names]
    for number in range(count):
        table, key, name = columns[number % len(columns)]
        with log.store.engine.connect() as connection:
            rows = connection.execute(text(f"SELECT {key}, {name} FROM {table}")).all()
        row, before = source.choice(rows)
        yield table, name, row, before, flipped(before, source.randrange(8 * len(before)))


def overwrite(store: Store, table: str, name: str, row: object, data: bytes) -> None:
    with store.engine.begin() as connection:
        statement = text(f"UPDATE {table} SET {name} = :data WHERE {HASHED[table][0]} = :row")
        connection.execute(statement, {"data": data, "row": row})


def damage_all(log: Local, count: int) -> int:
    """Flip, look, and put back; gives how many of the flips were found."""
    with log.store.engine.begin() as connection:
        for (name,) in connection.execute(text(TRIGGERS)).all():
            connection.execute(text(f"DROP TRIGGER {name}"))
    found = 0
    for table, name, row, before, after in flips(log, count):
        overwrite(log.store, table, name, row, after)
        with pytest.raises(QuotaryError):
            fsck(log.config, log.store)
        found += 1
        overwrite(log.store, table, name, row, before)
    fsck(log.config, log.store)
    return found


def test_a11_a_bit_that_flips_in_the_database_is_found(log: Local) -> None:
    assert damage_all(log, 40) == 40


@pytest.mark.soak
def test_a11_a_thousand_bits_that_flip_in_the_database_are_found(log: Local) -> None:
    assert damage_all(log, 1000) == 1000


def serve(log: Local) -> None:
    """Read what the public reads: every entry, a bundle entry by entry, a status with its proof."""
    public = PublicLog(log.store.read)
    snapshot = public.snapshot()
    for index in range(0, snapshot.size, 97):
        public.entry(index, snapshot.size)
    public.tiles.entries(0, 256)
    Bundles(public, snapshot).of(SERVICE, measurement("r1"))


@pytest.mark.parametrize("table", ["entry", "node", "record"])
def test_a11_a_damaged_entry_node_or_record_is_not_served(log: Local, table: str) -> None:
    serve(log)
    with log.store.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER {table}_no_update"))
        connection.execute(text(f"UPDATE {table} SET data = CAST(data || x'00' AS BLOB)"))
    with pytest.raises(Damaged):
        serve(log)


def exported(log: Local) -> list[Path]:
    return sorted(path for path in log.config.public.glob("tile/**/*") if path.is_file())


def test_a11_a_bit_that_flips_in_an_exported_file_is_found(log: Local) -> None:
    assert fsck(log.config, log.store).files == len(exported(log)) + 1
    source = random.Random(11)
    for file in [*exported(log), log.config.public / "checkpoint"]:
        before = file.read_bytes()
        # Of the checkpoint, what is signed: three lines.
        length = before.index(b"\n\n") if file.name == "checkpoint" else len(before)
        file.write_bytes(flipped(before, source.randrange(8 * length)))
        with pytest.raises(QuotaryError):
            fsck(log.config, log.store)
        file.write_bytes(before)
    fsck(log.config, log.store)


def test_a11_each_bit_that_flips_in_the_signers_memory_keeps_the_signer_from_starting(log: Local) -> None:
    path = log.config.keys / "signed-head.json"
    before, keys = path.read_bytes(), lambda: load_log_keys(log.config.keys, ORIGIN)
    for bit in range(0, 8 * len(before), 97):
        path.write_bytes(flipped(before, bit))
        with pytest.raises(Malformed):
            Signer(ORIGIN, keys, path, lambda: NOW)
    path.write_bytes(before)
    assert Signer(ORIGIN, keys, path, lambda: NOW).answer({"op": "head"})["size"] == recall(path).size


class BadMemory(Writer):
    """Stores one value of a batch with a bit flipped since it was computed."""

    flip: str = ""

    def integrate(self, batch: Batch) -> None:
        super().integrate(BUFFERS[self.flip](batch) if self.flip else batch)


def in_entry(batch: Batch) -> Batch:
    (leaf, data), *rest = batch.entries
    return replace(batch, entries=((leaf, flipped(data, 9)), *rest))


def in_leaf_hash(batch: Batch) -> Batch:
    (leaf, data), *rest = batch.entries
    return replace(batch, entries=((flipped(leaf, 9), data), *rest))


def in_tile(batch: Batch) -> Batch:
    level, n, data = batch.tiles[0]
    return replace(batch, tiles=((level, n, flipped(data, 9)), *batch.tiles[1:]))


def in_head(name: str) -> Callable[[Batch], Batch]:
    def flip(batch: Batch) -> Batch:
        changes = {name: flipped(getattr(batch.head, name), 8 * 8 + 1)}
        return replace(batch, head=replace(batch.head, **changes))

    return flip


BUFFERS: dict[str, Callable[[Batch], Batch]] = {
    "entry": in_entry,
    "leaf hash": in_leaf_hash,
    "tile": in_tile,
    "root": in_head("root"),
    "frontier": in_head("frontier"),
    "map root": in_head("trie_root"),
}


@pytest.mark.parametrize("buffer", sorted(BUFFERS))
def test_a11_a_bit_that_flips_in_memory_before_the_commit_is_found_before_the_signature(
    tmp_path: Path, buffer: str
) -> None:
    with local(tmp_path) as log:
        log.append(*(b'{"entry":%d}' % i for i in range(200)))
    opened = open_store(log.config.database_url)
    store = Store(opened.engine, opened.read, BadMemory(opened.engine))
    with local(tmp_path, store=store) as log:
        assert isinstance(store.write, BadMemory)
        entries = [b'{"entry":%d}' % i for i in range(200, 400)]
        store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
        store.write.flip = buffer
        before = log.signer.head()
        log.sequencer.integrate()
        with pytest.raises(Damaged):
            log.sequencer.sign()
        log.sequencer.load()
        with pytest.raises(Damaged):
            log.sequencer.sign()
        assert log.signer.head() == before


@pytest.mark.parametrize("column", ["data", "leaf_hash"])
def test_a11_a_waiting_entry_that_changed_is_not_logged(tmp_path: Path, column: str) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        log.store.write.enqueue([(leaf_hash(b"{}"), b"{}")], 0)
        with log.store.engine.begin() as connection:
            connection.execute(text(f"UPDATE pending SET {column} = CAST({column} || x'00' AS BLOB)"))
        before = log.store.read.head()
        with pytest.raises(Damaged, match="waiting"):
            log.sequencer.integrate()
        log.loop.round()
        assert log.store.read.head() == before
