"""Writes. Each public method is one transaction; an error at its commit leaves open whether it landed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from registry.errors import HeadMoved
from registry.store import schema
from registry.store.faults import translated
from registry.store.rows import Batch, Head, Published, Signed

CHUNK = 500


class Writer:
    """Writes of admission (``enqueue``) and of the sequencer (everything else)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=True)

    def create(self, head: Head) -> None:
        """Write the head of an empty log."""
        with self._transaction() as connection:
            connection.execute(insert(schema.head).values(id=1, **_head_values(head)))

    def enqueue(self, items: Sequence[tuple[bytes, bytes]], received: int) -> None:
        """Add entries (leaf hash, bytes) to those that wait; one that waits already stays as it is."""
        rows = [{"leaf_hash": leaf, "data": data, "received": received} for leaf, data in items]
        with self._transaction() as connection:
            _insert_new(connection, schema.pending, rows)

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
            _insert(connection, schema.entry, _entry_rows(batch))
            _insert(connection, schema.tile, [{"level": x, "n": n, "data": d} for x, n, d in batch.tiles])
            _insert_new(connection, schema.node, [{"hash": h, "data": d} for h, d in batch.nodes.items()])
            _insert(connection, schema.record, _record_rows(batch))
            _insert(connection, schema.outcome, _outcome_rows(batch))
            _insert(connection, schema.term, [{"term": t, "idx": i} for t, i in sorted(batch.terms)])
            self._forget(connection, batch.done)

    def forget(self, done: Sequence[int]) -> None:
        """Drop waiting rows that turned out to be logged already."""
        with self._transaction() as connection:
            self._forget(connection, done)

    def add_signed(self, signed: Signed, previous: int) -> None:
        """Store the signature over a committed head; ``previous`` is the size signed before it."""
        values = {"size": signed.size, "prev_size": previous, "root": signed.root, "note": signed.note}
        with self._transaction() as connection:
            connection.execute(insert(schema.checkpoint).values(**values))

    def publish(self, published: Published) -> None:
        """Replace what the public sees; never by a smaller log (the database refuses that too)."""
        values = {"size": published.size, "note": published.note, "at": published.at}
        with self._transaction() as connection:
            row = connection.execute(select(schema.published.c.size)).first()
            if row is None:
                connection.execute(insert(schema.published).values(id=1, **values))
            elif row.size > published.size:
                raise HeadMoved(f"published size is {row.size}, asked to publish {published.size}")
            else:
                connection.execute(update(schema.published).values(**values))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translated(), self._engine.begin() as connection:
            yield connection

    def _move_head(self, connection: Connection, old: Head, values: Mapping[str, object]) -> None:
        table = schema.head
        swap = update(table).where(table.c.id == 1, table.c.epoch == old.epoch, table.c.size == old.size)
        if connection.execute(swap.values(**values)).rowcount != 1:
            raise HeadMoved(f"the head is no longer at epoch {old.epoch}, size {old.size}")

    def _forget(self, connection: Connection, done: Sequence[int]) -> None:
        for start in range(0, len(done), CHUNK):
            connection.execute(
                delete(schema.pending).where(schema.pending.c.id.in_(done[start : start + CHUNK]))
            )


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


def _entry_rows(batch: Batch) -> list[dict[str, object]]:
    first = batch.old.size
    return [
        {"idx": first + i, "leaf_hash": leaf, "data": data} for i, (leaf, data) in enumerate(batch.entries)
    ]


def _record_rows(batch: Batch) -> list[dict[str, object]]:
    closed_by = batch.head.state_index
    return [{"key": key, "closed_by": closed_by, "data": data} for key, data in batch.records.items()]


def _outcome_rows(batch: Batch) -> list[dict[str, object]]:
    return [
        {
            "idx": row.index,
            "closed_by": row.closed_by,
            "kind": row.kind,
            "service": row.service,
            "sequence": row.sequence,
            "statement_id": row.statement_id,
            "effect": int(row.effect),
            "code": row.code,
        }
        for row in batch.outcomes
    ]


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        connection.execute(insert(table), list(rows))


def _insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(table).on_conflict_do_nothing(), list(rows))
