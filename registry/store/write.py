"""Writes. Each public method is one transaction; an error at its commit leaves open whether it landed."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Engine, delete, insert

from registry import flush
from registry.errors import DiskError, FlushFailed, HeadMoved
from registry.store import bulk, schema
from registry.store.engine import file_of
from registry.store.faults import translated
from registry.store.rows import Batch, Head, Published, Signed
from registry.store.unguarded import unguarded

# Less cannot hold the write-ahead log of one transaction.
LEAST_ROOM = 4 << 20

# What every round writes, past SQLAlchemy (``bulk.run``), as ``registry.store.read`` asks.
_SWAP = (
    "UPDATE head SET epoch = {epoch}, size = {size}, root = {root}, frontier = {frontier},"
    " trie_root = {trie_root}, ts = {ts}, state_index = {state_index}"
    " WHERE id = 1 AND epoch = {seen_epoch} AND size = {seen_size}"
)
_NEWEST_SIGNED = "SELECT coalesce(max(size), 0) FROM checkpoint"
_PUBLISHED_SIZE = "SELECT size FROM published"
_PUBLISH = "UPDATE published SET size = {size}, note = {note}, at = {at}"


class Writer:
    """Writes of admission (``enqueue``) and of the sequencer (everything else).

    After a write that the disk failed nothing is written any more, by a process that is started again either
    (``registry.flush``): the next flush could succeed without it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=True)
        self._file = file_of(engine)
        self._failed = flush.recall(self._file) if self._file else None

    def check(self) -> None:
        """Raise the ``FlushFailed`` after which nothing is written."""
        if self._failed is not None:
            raise self._failed

    def create(self, head: Head) -> None:
        """Write the head of an empty log."""
        with self._transaction() as connection:
            connection.execute(insert(schema.head).values(id=1, **_head_values(head)))

    def enqueue(
        self, items: Sequence[tuple[bytes, bytes]], received: int, seals: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Add entries (leaf hash, bytes) to those that wait; one that waits already stays as it is.

        seals: what a judge says of them, by leaf hash
        """
        said = seals or {}
        rows = [(leaf, data, received, said.get(leaf)) for leaf, data in items]
        with self._transaction() as connection:
            bulk.insert_new(connection, schema.pending, rows)

    def take_over(self, head: Head) -> Head:
        """Raise the epoch, so that a sequencer that still feels in charge fails at its next commit."""
        mine = replace(head, epoch=head.epoch + 1)
        with self._transaction() as connection:
            self._move_head(connection, head, _head_values(mine))
        return mine

    def integrate(self, batch: Batch) -> None:
        """Append entries and all that follows from them, if the head is still ``batch.old``."""
        with self._transaction() as connection:
            self._move_head(connection, batch.old, _head_values(batch.head))
            bulk.insert(connection, schema.entry, _entry_rows(batch.old.size, batch.entries))
            bulk.insert(connection, schema.tile, batch.tiles)
            bulk.insert_new(connection, schema.node, list(batch.nodes.items()))
            bulk.insert(connection, schema.record, _record_rows(batch))
            bulk.insert(connection, schema.outcome, _outcome_rows(batch))
            bulk.insert(connection, schema.term, sorted(batch.terms))
            self._add_state(connection, batch)
            bulk.delete(connection, schema.pending, batch.done)

    def replace_terms(self, stop: int, terms: Iterable[Sequence[tuple[str, int]]]) -> None:
        """Make the search index of the entries below ``stop`` anew; ``terms`` gives it in portions."""
        with self._transaction() as connection, unguarded(connection, schema.term):
            connection.execute(delete(schema.term).where(schema.term.c.idx < stop))
            for portion in terms:
                bulk.insert(connection, schema.term, portion)

    def load(
        self, start: int, entries: Sequence[tuple[bytes, bytes]], tiles: Sequence[tuple[int, int, bytes]]
    ) -> None:
        """Write entries (leaf hash, bytes) from ``start`` on, and tiles, into a database without a head."""
        with self._transaction() as connection:
            bulk.insert(connection, schema.entry, _entry_rows(start, entries))
            bulk.insert(connection, schema.tile, tiles)

    def forget(self, done: Sequence[int]) -> None:
        """Drop waiting rows that turned out to be logged already."""
        with self._transaction() as connection:
            bulk.delete(connection, schema.pending, done)

    def add_signed(self, signed: Signed, previous: int) -> None:
        """Store the signature over a committed head; ``previous`` is the size signed before it."""
        with self._transaction() as connection:
            bulk.lock_head(connection)
            newest = bulk.run(connection, _NEWEST_SIGNED, {}).scalar()
            if newest != previous:
                raise HeadMoved(f"the newest signed size is {newest}, asked to continue {previous}")
            bulk.insert(connection, schema.checkpoint, [(signed.size, previous, signed.root, signed.note)])

    def publish(self, published: Published) -> None:
        """Replace what the public sees; never by a smaller log (the database refuses that too)."""
        values = {"size": published.size, "note": published.note, "at": published.at}
        with self._transaction() as connection:
            found = bulk.run(connection, _PUBLISHED_SIZE, {}).scalar()
            if found is None:
                bulk.insert(connection, schema.published, [(1, *values.values())])
            elif found > published.size:
                raise HeadMoved(f"published size is {found}, asked to publish {published.size}")
            else:
                bulk.run(connection, _PUBLISH, values)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self.check()
        try:
            with translated(), self._engine.begin() as connection:
                yield connection
        except DiskError as error:
            # The driver does not say which call failed. Without room it may be one that lost nothing.
            if self._has_room():
                self._failed = FlushFailed(f"a write of the database that failed: {error}")
                if self._file:
                    flush.remember(self._file, self._failed)
                raise self._failed from error
            raise

    def _has_room(self) -> bool:
        return self._file is not None and shutil.disk_usage(self._file.parent).free >= LEAST_ROOM

    def _move_head(self, connection: Connection, old: Head, values: Mapping[str, object]) -> None:
        seen = {"seen_epoch": old.epoch, "seen_size": old.size}
        if bulk.run(connection, _SWAP, {**values, **seen}).rowcount != 1:
            raise HeadMoved(f"the head is no longer at epoch {old.epoch}, size {old.size}")

    def _add_state(self, connection: Connection, batch: Batch) -> None:
        at = batch.head.state_index
        bulk.insert(connection, schema.holder, [(*item, at) for item in sorted(batch.holders)])
        bulk.insert(connection, schema.denied, [(*item, at) for item in batch.denied.items()])
        bulk.insert(connection, schema.signer, sorted(batch.signers))


def _head_values(head: Head) -> dict[str, object]:
    return {
        "epoch": head.epoch,
        "size": head.size,
        "root": head.root,
        "frontier": head.frontier,
        "trie_root": head.trie_root,
        "ts": head.ts,
        "state_index": head.state_index,
    }


def _entry_rows(start: int, entries: Sequence[tuple[bytes, bytes]]) -> list[bulk.Row]:
    return [(index, leaf, data) for index, (leaf, data) in enumerate(entries, start)]


def _record_rows(batch: Batch) -> list[bulk.Row]:
    closed_by = batch.head.state_index
    return [(key, closed_by, data) for key, data in batch.records.items()]


def _outcome_rows(batch: Batch) -> list[bulk.Row]:
    return [
        (
            row.index,
            row.closed_by,
            row.kind,
            row.service,
            row.sequence,
            row.statement_id,
            int(row.effect),
            row.code,
        )
        for row in batch.outcomes
    ]
