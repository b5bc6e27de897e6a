"""F1's state in tables: who holds an id, which ids are denied, which keys signed; and more search terms.

They follow from the entries, so those of an existing log are filled in here. Entries, statements and F1 never
change their meaning, so today's readers may be used; search terms are whatever today's code makes them.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from quotary.statements.envelope import Envelope
from quotary.statements.opened import open_entry
from quotary.statements.records import MeasurementRecord, parse_record
from quotary.statements.release import Release
from quotary.statements.revocation import Revocation
from quotary.statements.schema import parse_statement
from quotary.statements.terms import terms_in

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NEW = ("holder", "denied", "signer")
NUMBER = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
PAGE = 500


def upgrade() -> None:
    holder, denied, signer = _tables()
    _fill_holders(holder)
    _fill_denied(denied)
    _fill_signers(signer)
    _fill_terms()
    for table in NEW:
        if op.get_bind().dialect.name == "postgresql":
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
        else:
            for verb in ("update", "delete"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} FOR EACH ROW "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )


def downgrade() -> None:
    raise NotImplementedError("a log does not go back: restore a backup into a new folder and run recover")


def _tables() -> tuple[sa.Table, sa.Table, sa.Table]:
    return (
        _create("holder", _bytes("measurement"), sa.Column("service", sa.Text, primary_key=True), _number()),
        _create("denied", _bytes("measurement"), sa.Column("reason", sa.Text, nullable=False), _number()),
        _create("signer", _bytes("key"), sa.Column("idx", NUMBER, primary_key=True, autoincrement=False)),
    )


def _create(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return op.create_table(name, *columns, sqlite_strict=True, sqlite_with_rowid=False)


def _bytes(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, primary_key=True)


def _number() -> sa.Column[Any]:
    return sa.Column("closed_by", NUMBER, nullable=False)


def _fill_holders(table: sa.Table) -> None:
    """The first record of each key says whose measurement it is."""
    query = (
        "SELECT key, closed_by, data FROM record AS r WHERE key > :last AND closed_by = "
        "(SELECT min(closed_by) FROM record WHERE key = r.key) ORDER BY key LIMIT :page"
    )
    for rows in _pages(query, b"", "key"):
        found = [(parse_record(bytes(row.data)), row.closed_by) for row in rows]
        values = [
            {"measurement": record.measurement, "service": record.service, "closed_by": closed_by}
            for record, closed_by in found
            if isinstance(record, MeasurementRecord)
        ]
        if values:
            op.get_bind().execute(sa.insert(table), values)


def _fill_denied(table: sa.Table) -> None:
    """The log's own revocations, the first of an id."""
    query = (
        "SELECT o.idx, o.closed_by, e.data FROM outcome AS o JOIN entry AS e ON e.idx = o.idx "
        "WHERE o.idx > :last AND o.service = 'log' AND o.kind = 'revocation' AND o.effect = 1 "
        "ORDER BY o.idx LIMIT :page"
    )
    seen: set[bytes] = set()
    for rows in _pages(query, -1, "idx"):
        for row in rows:
            found = _statement(row.data)
            if not isinstance(found, Revocation) or found.suspend_until is not None:
                continue
            for measurement in found.measurements or _rows_of(found.release):
                if measurement not in seen:
                    seen.add(measurement)
                    values = {"measurement": measurement, "reason": found.reason, "closed_by": row.closed_by}
                    op.get_bind().execute(sa.insert(table), values)


def _fill_signers(table: sa.Table) -> None:
    query = (
        "SELECT o.idx, e.data FROM outcome AS o JOIN entry AS e ON e.idx = o.idx WHERE o.idx > :last "
        "AND o.kind IN ('release', 'rebuild') AND o.effect = 1 ORDER BY o.idx LIMIT :page"
    )
    for rows in _pages(query, -1, "idx"):
        values = [
            {"key": bytes.fromhex(signature.keyid.removeprefix("sha256:")), "idx": row.idx}
            for row in rows
            for signature in Envelope.parse(bytes(row.data)).signatures
        ]
        op.get_bind().execute(sa.insert(table), values)


def _fill_terms() -> None:
    """Add what the index did not know before; ``registry reindex`` makes it anew at any time."""
    query = (
        "SELECT o.idx, e.data FROM outcome AS o JOIN entry AS e ON e.idx = o.idx WHERE o.idx > :last "
        "ORDER BY o.idx LIMIT :page"
    )
    insert = sa.text("INSERT INTO term (term, idx) VALUES (:term, :idx) ON CONFLICT DO NOTHING")
    for rows in _pages(query, -1, "idx"):
        values = [
            {"term": term, "idx": row.idx} for row in rows for term in terms_in(open_entry(bytes(row.data)))
        ]
        if values:
            op.get_bind().execute(insert, values)


def _pages(query: str, last: object, key: str) -> Iterator[list[Any]]:
    while rows := list(op.get_bind().execute(sa.text(query), {"last": last, "page": PAGE})):
        yield rows
        last = getattr(rows[-1], key)


def _rows_of(release: str | None) -> tuple[bytes, ...]:
    query = (
        "SELECT e.data FROM outcome AS o JOIN entry AS e ON e.idx = o.idx "
        "WHERE o.statement_id = :name AND o.effect = 1"
    )
    found = _statement(op.get_bind().scalar(sa.text(query), {"name": release}))
    assert isinstance(found, Release)  # the revocation had effect
    return tuple(row.measurement for row in found.rows)


def _statement(entry: Any) -> object:
    return parse_statement(Envelope.parse(bytes(entry)).payload).predicate
