"""The first schema: entries, tiles, trie nodes, records, head, checkpoints; append-only by trigger."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("entry", "outcome", "term", "tile", "node", "record", "checkpoint")
NUMBER = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    _tables()
    if op.get_bind().dialect.name == "postgresql":
        _postgresql_triggers()
    else:
        _sqlite_triggers()


def downgrade() -> None:
    raise NotImplementedError("a log does not go back: restore a backup into a new folder and run recover")


def _tables() -> None:
    _create(
        "pending",
        _number("id", True),
        _bytes("leaf_hash"),
        _bytes("data"),
        _number("received"),
        unique="leaf_hash",
    )
    _create("entry", _number("idx", True), _bytes("leaf_hash"), _bytes("data"), unique="leaf_hash")
    texts: list[sa.Column[Any]] = [sa.Column(name, sa.Text, nullable=False) for name in ("kind", "service")]
    _create(
        "outcome",
        _number("idx", True),
        _number("closed_by"),
        *texts,
        _number("sequence"),
        sa.Column("statement_id", sa.Text, nullable=False),
        sa.Column("effect", sa.Integer, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
    )
    op.create_index("ix_outcome_statement_id", "outcome", ["statement_id"])
    op.create_index("outcome_service", "outcome", ["service", "kind", "idx"])
    _create("term", sa.Column("term", sa.Text, primary_key=True), _number("idx", True))
    level: sa.Column[Any] = sa.Column("level", sa.Integer, primary_key=True, autoincrement=False)
    _create("tile", level, _number("n", True), _bytes("data"))
    _create("node", _bytes("hash", True), _bytes("data"))
    _create("record", _bytes("key", True), _number("closed_by", True), _bytes("data"))
    numbers = [_number(name) for name in ("ts", "state_index")]
    blobs = [_bytes(name) for name in ("root", "frontier", "trie_root")]
    _create("head", _row(), _number("epoch"), _number("size"), *blobs, *numbers)
    _create(
        "checkpoint",
        _number("size", True),
        _number("prev_size"),
        _bytes("root"),
        _bytes("note"),
        unique="prev_size",
    )
    _create("published", _row(), _number("size"), _bytes("note"), _number("at"))


def _create(name: str, *columns: sa.Column[Any], unique: str | None = None) -> None:
    constraints = [sa.UniqueConstraint(unique)] if unique else []
    op.create_table(name, *columns, *constraints, sqlite_strict=True)


def _number(name: str, key: bool = False) -> sa.Column[Any]:
    counts = "auto" if name == "id" else False
    return sa.Column(name, NUMBER, primary_key=key, autoincrement=counts, nullable=False)  # type: ignore[arg-type]


def _row() -> sa.Column[Any]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)


def _bytes(name: str, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, primary_key=key, nullable=False)


def _sqlite_triggers() -> None:
    for table in APPEND_ONLY:
        for verb in ("update", "delete"):
            _guard(f"{table}_no_{verb}", f"{verb} on {table}", f"{table} is append-only")
    gap = "(SELECT coalesce(max(idx) + 1, 0) FROM entry)"
    _guard("entry_gap", "insert on entry", "entries have no gaps", f"NEW.idx <> {gap}")
    known = "EXISTS (SELECT 1 FROM entry WHERE leaf_hash = NEW.leaf_hash)"
    _guard("entry_once", "insert on entry", "an entry is logged once", known)
    newest = "(SELECT coalesce(max(size), 0) FROM checkpoint)"
    _guard(
        "checkpoint_chain", "insert on checkpoint", "checkpoints form one chain", f"NEW.prev_size <> {newest}"
    )
    for table in ("head", "published"):
        _guard(f"{table}_no_delete", f"delete on {table}", f"{table} is never deleted")
        _guard(f"{table}_grows", f"update on {table}", f"{table} never shrinks", "NEW.size < OLD.size")


def _guard(name: str, when: str, message: str, condition: str = "1") -> None:
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
    )


def _postgresql_triggers() -> None:
    _function("refuse_change", "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;")
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    _function(
        "refuse_gap",
        "IF NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM entry) THEN "
        "RAISE EXCEPTION 'entries have no gaps'; END IF; RETURN NEW;",
    )
    _row_trigger("entry_gap", "INSERT ON entry", "refuse_gap")
    _function(
        "refuse_branch",
        "IF NEW.prev_size <> (SELECT coalesce(max(size), 0) FROM checkpoint) THEN "
        "RAISE EXCEPTION 'checkpoints form one chain'; END IF; RETURN NEW;",
    )
    _row_trigger("checkpoint_chain", "INSERT ON checkpoint", "refuse_branch")
    _function(
        "refuse_shrinking",
        "IF NEW.size < OLD.size THEN RAISE EXCEPTION '% never shrinks', TG_TABLE_NAME; END IF; RETURN NEW;",
    )
    for table in ("head", "published"):
        _row_trigger(f"{table}_grows", f"UPDATE ON {table}", "refuse_shrinking")
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _function(name: str, body: str) -> None:
    op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")


def _row_trigger(name: str, when: str, function: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW EXECUTE FUNCTION {function}()")
