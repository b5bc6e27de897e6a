"""Tables. All but ``pending``, ``head`` and ``published`` are append-only by trigger (see ``migrations/``).

``head`` is the one row that the sequencer moves by compare-and-swap; ``published`` is the one row that the
public sees. What stands between them is committed or signed, and not yet cosigned.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

REVISION = "0003"

metadata = MetaData()


def _number() -> Integer:
    return Integer().with_variant(BigInteger(), "postgresql")


pending = Table(
    "pending",
    metadata,
    Column("id", _number(), primary_key=True, autoincrement=True),
    Column("leaf_hash", LargeBinary, nullable=False, unique=True),
    Column("data", LargeBinary, nullable=False),
    Column("received", _number(), nullable=False),
    Column("seal", LargeBinary),
    sqlite_strict=True,
)

entry = Table(
    "entry",
    metadata,
    Column("idx", _number(), primary_key=True, autoincrement=False),
    Column("leaf_hash", LargeBinary, nullable=False, unique=True),
    Column("data", LargeBinary, nullable=False),
    sqlite_strict=True,
)

outcome = Table(
    "outcome",
    metadata,
    Column("idx", _number(), primary_key=True, autoincrement=False),
    Column("closed_by", _number(), nullable=False),
    Column("kind", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("sequence", _number(), nullable=False),
    Column("statement_id", Text, nullable=False, index=True),
    Column("effect", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Index("outcome_service", "service", "kind", "idx"),
    sqlite_strict=True,
)

term = Table(
    "term",
    metadata,
    Column("term", Text, primary_key=True),
    Column("idx", _number(), primary_key=True, autoincrement=False),
    sqlite_strict=True,
)

tile = Table(
    "tile",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("n", _number(), primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_strict=True,
)

node = Table(
    "node",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    sqlite_strict=True,
)

record = Table(
    "record",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("closed_by", _number(), primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_strict=True,
)

# What F1 asks and no other table answers; ``closed_by`` is the state entry that it belongs to.
holder = Table(
    "holder",
    metadata,
    Column("measurement", LargeBinary, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("closed_by", _number(), nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

denied = Table(
    "denied",
    metadata,
    Column("measurement", LargeBinary, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("closed_by", _number(), nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Which keys (32 bytes) signed the effective releases and rebuilds.
signer = Table(
    "signer",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("idx", _number(), primary_key=True, autoincrement=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", _number(), nullable=False),
    Column("size", _number(), nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("trie_root", LargeBinary, nullable=False),
    Column("ts", _number(), nullable=False),
    Column("state_index", _number(), nullable=False),
    sqlite_strict=True,
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("size", _number(), primary_key=True, autoincrement=False),
    Column("prev_size", _number(), nullable=False, unique=True),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
    sqlite_strict=True,
)

published = Table(
    "published",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", _number(), nullable=False),
    Column("note", LargeBinary, nullable=False),
    Column("at", _number(), nullable=False),
    sqlite_strict=True,
)

APPEND_ONLY = (
    "entry",
    "outcome",
    "term",
    "tile",
    "node",
    "record",
    "holder",
    "denied",
    "signer",
    "checkpoint",
)
