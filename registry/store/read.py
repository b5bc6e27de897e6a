"""Every read. A method that serves the public takes the published size and shows nothing beyond it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select, func, select, tuple_

from registry.store import bulk, schema
from registry.store.faults import translated
from registry.store.rows import Head, OutcomeRow, Published, Signed, StateRows, Waiting

CHUNK = 500

# What is asked again and again, past SQLAlchemy (``bulk.run``): composing a query costs as much as
# answering it, and the first of its kind after a start a millisecond.
_HEAD = "SELECT epoch, size, root, frontier, trie_root, ts, state_index FROM head"
_SIGNED = "SELECT size, root, note FROM checkpoint ORDER BY size DESC LIMIT 1"
_PUBLISHED = "SELECT size, note, at FROM published"
_ENTRIES = "SELECT data FROM entry WHERE idx >= {start} AND idx < {stop} ORDER BY idx"
_WAITING = "SELECT id, leaf_hash, data, seal FROM pending WHERE id > {last} ORDER BY id LIMIT {limit}"
_NAMES = "SELECT id, leaf_hash FROM pending WHERE id > {last} ORDER BY id LIMIT {limit}"
_PLACE = "SELECT idx FROM entry WHERE leaf_hash = {leaf_hash}"
_LEAVES = "SELECT leaf_hash FROM entry WHERE idx >= {start} AND idx < {stop} ORDER BY idx"
_COUNT = "SELECT count(*) FROM pending"
_RECORD = "SELECT data FROM record WHERE key = {key} AND closed_by < {size} ORDER BY closed_by DESC LIMIT 1"
_TILE = "SELECT data FROM tile WHERE level = {level} AND n = {number}"


class Reader:
    """Reads; each is one statement, and needs no transaction around it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(single=True)

    def head(self) -> Head | None:
        """Give the committed end of the log; None before ``create``."""
        row = self._first(_HEAD)
        return Head(*row) if row else None

    def signed(self) -> Signed | None:
        """Give the newest checkpoint with the log's own signatures."""
        row = self._first(_SIGNED)
        return Signed(*row) if row else None

    def all_signed(self) -> list[Signed]:
        """Give every checkpoint that the log signed, the smallest first."""
        table = schema.checkpoint
        rows = self._all(select(table).order_by(table.c.size))
        return [Signed(row["size"], row["root"], row["note"]) for row in rows]

    def signed_before(self, size: int, limit: int) -> list[Signed]:
        """Give the newest checkpoints that the log signed below ``size``, newest first."""
        table = schema.checkpoint
        query = select(table).where(table.c.size < size).order_by(table.c.size.desc()).limit(limit)
        return [Signed(row["size"], row["root"], row["note"]) for row in self._all(query)]

    def signed_at(self, size: int) -> Signed | None:
        """Give the checkpoint of exactly this size with the log's own signatures."""
        table = schema.checkpoint
        row = self._one(select(table).where(table.c.size == size))
        return Signed(row["size"], row["root"], row["note"]) if row else None

    def published(self) -> Published | None:
        """Give what the public sees; None before the first publication."""
        row = self._first(_PUBLISHED)
        return Published(*row) if row else None

    def published_size(self) -> int:
        row = self._first(_PUBLISHED)
        return int(row[0]) if row else 0

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Give the bytes of entries ``start`` to ``stop - 1``."""
        with self._reading() as connection:
            found = bulk.run(connection, _ENTRIES, {"start": start, "stop": stop})
            return list(found.scalars())

    def leaf_hashes(self, start: int, stop: int) -> list[bytes]:
        with self._reading() as connection:
            found = bulk.run(connection, _LEAVES, {"start": start, "stop": stop})
            return list(found.scalars())

    def find(self, leaf_hash: bytes) -> int | None:
        """Give the index of an entry, published or not."""
        row = self._first(_PLACE, {"leaf_hash": leaf_hash})
        return int(row[0]) if row else None

    def find_all(self, leaf_hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Give the indices of those entries that are logged."""
        query = "SELECT leaf_hash, idx FROM entry WHERE leaf_hash IN ({among})"
        return {leaf_hash: int(index) for leaf_hash, index in self._among(query, leaf_hashes, {})}

    def waiting(self, limit: int) -> list[Waiting]:
        """Give admitted entries in the order of their arrival."""
        return self.waiting_after(0, limit)

    def waiting_after(self, last_id: int, limit: int) -> list[Waiting]:
        """Give those that arrived after the row ``last_id``."""
        with self._reading() as connection:
            found = bulk.run(connection, _WAITING, {"last": last_id, "limit": limit})
            return [Waiting(*row) for row in found]

    def waiting_names(self, last_id: int, limit: int) -> list[tuple[int, bytes]]:
        """Give id and leaf hash of those that arrived after the row ``last_id``."""
        with self._reading() as connection:
            found = bulk.run(connection, _NAMES, {"last": last_id, "limit": limit})
            return [(int(row[0]), row[1]) for row in found]

    def waiting_count(self) -> int:
        row = self._first(_COUNT)
        return int(row[0]) if row else 0

    def oldest_waiting(self) -> int | None:
        """Give when the oldest waiting entry arrived (Unix seconds); None where none waits."""
        table = schema.pending
        row = self._one(select(table.c.received).order_by(table.c.id).limit(1))
        return int(row["received"]) if row else None

    def waiting_among(self, leaf_hashes: Sequence[bytes]) -> set[bytes]:
        """Give those of these entries that wait."""
        query = "SELECT leaf_hash, id FROM pending WHERE leaf_hash IN ({among})"
        return set(dict(self._among(query, leaf_hashes, {})))

    def tile(self, level: int, n: int) -> bytes | None:
        """Give a full tile (8192 bytes); None while it is not full."""
        row = self._first(_TILE, {"level": level, "number": n})
        return row[0] if row else None

    def nodes(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Give those of these trie nodes that are stored."""
        query = "SELECT hash, data FROM node WHERE hash IN ({among})"
        return dict(self._among(query, digests, {}))

    def record(self, key: bytes, size: int) -> bytes | None:
        """Give the record under a map key as of the state entry at ``size - 1``."""
        row = self._first(_RECORD, {"key": key, "size": size})
        return row[0] if row else None

    def records_at(self, keys: Sequence[bytes], closed_by: int) -> dict[bytes, bytes]:
        """Give those of these map keys' records that one state entry committed."""
        table, found = schema.record, {}
        for start in range(0, len(keys), CHUNK):
            some = table.c.key.in_(keys[start : start + CHUNK])
            query = select(table.c.key, table.c.data).where(some, table.c.closed_by == closed_by)
            found.update({row["key"]: row["data"] for row in self._all(query)})
        return found

    def records(self, size: int) -> list[bytes]:
        """Give the newest record of every key as of the state entry at ``size - 1``."""
        table = schema.record
        newest = select(table.c.key, func.max(table.c.closed_by).label("at")).where(table.c.closed_by < size)
        newest_by_key = newest.group_by(table.c.key).subquery()
        same = (table.c.key == newest_by_key.c.key) & (table.c.closed_by == newest_by_key.c.at)
        query = select(table.c.data).join(newest_by_key, same).order_by(table.c.key)
        return [row["data"] for row in self._all(query)]

    def outcome(self, index: int) -> OutcomeRow | None:
        row = self._one(select(schema.outcome).where(schema.outcome.c.idx == index))
        return _outcome(row) if row else None

    def closing(self, index: int) -> int | None:
        """Give the state entry that closed the first interval with a statement at ``index`` or behind it."""
        table = schema.outcome
        row = self._one(select(table.c.closed_by).where(table.c.idx >= index).order_by(table.c.idx).limit(1))
        return int(row["closed_by"]) if row else None

    def outcomes(self, start: int, stop: int) -> list[OutcomeRow]:
        """Give the outcomes of the statements from index ``start`` to ``stop - 1``."""
        table = schema.outcome
        query = select(table).where(table.c.idx >= start, table.c.idx < stop).order_by(table.c.idx)
        return [_outcome(row) for row in self._all(query)]

    def by_statement(self, statement_id: str, size: int) -> list[OutcomeRow]:
        """Give every logged copy of a statement below ``size``; at most one of them had effect."""
        table = schema.outcome
        query = select(table).where(table.c.statement_id == statement_id, table.c.closed_by < size)
        return [_outcome(row) for row in self._all(query.order_by(table.c.idx))]

    def by_service(self, service: str, size: int, kind: str | None = None) -> list[OutcomeRow]:
        """Give the statements of a service below ``size`` in log order, perhaps of one kind only."""
        table = schema.outcome
        query = select(table).where(table.c.service == service, table.c.closed_by < size)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        return [_outcome(row) for row in self._all(query.order_by(table.c.idx))]

    def newest_of(self, service: str, before: int, limit: int) -> list[OutcomeRow]:
        """Give the newest statements of a service below the index ``before``, in log order."""
        table = schema.outcome
        query = select(table).where(table.c.service == service, table.c.idx < before)
        rows = self._all(query.order_by(table.c.idx.desc()).limit(limit))
        return [_outcome(row) for row in reversed(rows)]

    def allocations(self, before: int, limit: int) -> list[OutcomeRow]:
        """Give the newest effective first delegations below ``before``, one a service, in log order."""
        table = schema.outcome
        first = (table.c.kind == "delegation") & (table.c.sequence == 1) & (table.c.effect == 1)
        query = select(table).where(first, table.c.idx < before)
        rows = self._all(query.order_by(table.c.idx.desc()).limit(limit))
        return [_outcome(row) for row in reversed(rows)]

    def last_sequences(self, service: str, size: int) -> dict[str, int]:
        """Give the last effective sequence of each kind of a service below ``size``."""
        table = schema.outcome
        query = select(table.c.kind, func.max(table.c.sequence).label("last"))
        query = query.where(table.c.service == service, table.c.effect == 1, table.c.closed_by < size)
        return {row["kind"]: int(row["last"]) for row in self._all(query.group_by(table.c.kind))}

    def by_kind(self, kind: str, size: int) -> list[OutcomeRow]:
        """Give every statement of a kind below ``size`` in log order."""
        table = schema.outcome
        query = select(table).where(table.c.kind == kind, table.c.closed_by < size).order_by(table.c.idx)
        return [_outcome(row) for row in self._all(query)]

    def newest_of_kind(
        self, kind: str, first: int, before: int, limit: int, service: str | None = None
    ) -> list[OutcomeRow]:
        """Give the newest effective statements of a kind from ``first`` to ``before - 1``, newest first."""
        table = schema.outcome
        query = select(table).where(table.c.idx >= first, table.c.idx < before)
        query = query.where(table.c.kind == kind, table.c.effect == 1)
        if service is not None:
            query = query.where(table.c.service == service)
        return [_outcome(row) for row in self._all(query.order_by(table.c.idx.desc()).limit(limit))]

    def by_term(self, term: str, size: int, limit: int) -> list[int]:
        """Give the newest indices below ``size`` whose statement names ``term``."""
        table = schema.term
        query = select(table.c.idx).where(table.c.term == term, table.c.idx < size)
        return [int(row["idx"]) for row in self._all(query.order_by(table.c.idx.desc()).limit(limit))]

    def terms(self, start: int, stop: int) -> set[tuple[str, int]]:
        """Give the search terms of the entries from index ``start`` to ``stop - 1``."""
        table = schema.term
        query = select(table.c.term, table.c.idx).where(table.c.idx >= start, table.c.idx < stop)
        return {(row["term"], int(row["idx"])) for row in self._all(query)}

    def newest_signed_by(self, key: bytes, size: int, limit: int) -> list[int]:
        """Give the newest indices below ``size`` of the effective releases and rebuilds that a key signed."""
        table = schema.signer
        query = select(table.c.idx).where(table.c.key == key, table.c.idx < size)
        return [int(row["idx"]) for row in self._all(query.order_by(table.c.idx.desc()).limit(limit))]

    def newest_records(self, keys: Sequence[bytes], size: int) -> dict[bytes, bytes]:
        """Give the records of those keys that have one as of the state entry at ``size - 1``."""
        query = (
            "SELECT key, (SELECT data FROM record WHERE record.key = asked.key AND closed_by < {size}"
            " ORDER BY closed_by DESC LIMIT 1) FROM ({among}) AS asked"
        )
        return {key: data for key, data in self._among(query, keys, {"size": size}) if data is not None}

    def effective(self, statement_ids: Sequence[str], size: int) -> dict[str, int]:
        """Give the indices of those of the statements that had effect below ``size``."""
        query = "SELECT statement_id, idx FROM outcome WHERE statement_id IN ({among}) AND effect = 1"
        found = self._among(query + " AND closed_by < {size}", statement_ids, {"size": size})
        return {name: int(index) for name, index in found}

    def newest_sequences(self, services: Sequence[str], kind: str, size: int) -> dict[str, int]:
        """Give the last effective sequence of a kind below ``size`` of each service that has one."""
        query = (
            "SELECT key, (SELECT sequence FROM outcome WHERE service = asked.key AND kind = {kind}"
            " AND effect = 1 AND closed_by < {size} ORDER BY idx DESC LIMIT 1) FROM ({among}) AS asked"
        )
        found = self._among(query, services, {"kind": kind, "size": size})
        return {service: int(sequence) for service, sequence in found if sequence is not None}

    def held_after(self, place: tuple[bytes, str], size: int, limit: int) -> list[tuple[bytes, str]]:
        """Give (measurement id, service) of the records as of the state entry at ``size - 1``, in this order,
        from the first behind ``place`` on.
        """
        table = schema.holder
        columns = (table.c.measurement, table.c.service)
        query = select(*columns).where(tuple_(*columns) > tuple_(*place), table.c.closed_by < size)
        return [
            (row["measurement"], row["service"]) for row in self._all(query.order_by(*columns).limit(limit))
        ]

    def holders(self, measurement: bytes, size: int) -> tuple[str, ...]:
        """Give the services that have a record of a measurement id below ``size``."""
        table = schema.holder
        query = select(table.c.service).where(table.c.measurement == measurement, table.c.closed_by < size)
        return tuple(row["service"] for row in self._all(query.order_by(table.c.service)))

    def denials(self, measurements: Sequence[bytes], size: int) -> dict[bytes, str]:
        """Give the reasons of those ids that no service may use below ``size``."""
        query = "SELECT measurement, reason FROM denied WHERE measurement IN ({among}) AND closed_by < {size}"
        return dict(self._among(query, measurements, {"size": size}))

    def signed_by(self, key: bytes, kind: str, start: int, size: int, limit: int) -> list[OutcomeRow]:
        """Give the oldest effective statements of a kind that a key signed, from index ``start`` on."""
        table, signer = schema.outcome, schema.signer
        query = select(table).join(signer, signer.c.idx == table.c.idx)
        query = query.where(signer.c.key == key, signer.c.idx >= start)
        query = query.where(table.c.kind == kind, table.c.closed_by < size)
        return [_outcome(row) for row in self._all(query.order_by(signer.c.idx).limit(limit))]

    def state_rows(self, size: int) -> StateRows:
        """Give all that is kept of F1's state beside records and outcomes below ``size``."""
        holder, denied, signer = schema.holder, schema.denied, schema.signer
        held = self._all(select(holder).where(holder.c.closed_by < size))
        refused = self._all(select(denied).where(denied.c.closed_by < size))
        signed = self._all(select(signer).where(signer.c.idx < size))
        return StateRows(
            {(row["measurement"], row["service"], row["closed_by"]) for row in held},
            {(row["measurement"], row["reason"], row["closed_by"]) for row in refused},
            {(row["key"], row["idx"]) for row in signed},
        )

    def state_after(self, index: int) -> int | None:
        """Give the index of the state entry that closed the interval of the statement at ``index``."""
        row = self._one(select(schema.outcome.c.closed_by).where(schema.outcome.c.idx == index))
        return int(row["closed_by"]) if row else None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(), self._engine.connect() as connection:
            yield connection

    def _among(
        self, query: str, keys: Sequence[bytes] | Sequence[str], values: Mapping[str, object]
    ) -> Sequence[tuple[Any, Any]]:
        """Give the two columns of a query (see ``bulk.select_among``)."""
        with self._reading() as connection:
            return bulk.select_among(connection, query, keys, values)

    def _first(self, query: str, values: Mapping[str, object] | None = None) -> Sequence[Any] | None:
        with self._reading() as connection:
            return bulk.run(connection, query, values or {}).first()

    def _one(self, query: Select[*tuple[object, ...]]) -> RowMapping | None:
        with self._reading() as connection:
            return connection.execute(query).mappings().first()

    def _all(self, query: Select[*tuple[object, ...]]) -> Sequence[RowMapping]:
        with self._reading() as connection:
            return _rows(connection, query)


def _rows(connection: Connection, query: Select[*tuple[object, ...]]) -> Sequence[RowMapping]:
    return connection.execute(query).mappings().all()


def _outcome(row: RowMapping) -> OutcomeRow:
    return OutcomeRow(
        index=row["idx"],
        closed_by=row["closed_by"],
        kind=row["kind"],
        service=row["service"],
        sequence=row["sequence"],
        statement_id=row["statement_id"],
        effect=bool(row["effect"]),
        code=row["code"],
    )
