"""Open the database in a mode that keeps what it acknowledged, or refuse to open it.

SQLite: the ``pysqlite3`` wheel (a system's SQLite may carry the WAL-reset corruption of 3.7.0 to 3.51.2), WAL
and synchronous=FULL; every setting is read back. A writing transaction on SQLite begins IMMEDIATE, so that it
never fails half way for want of the lock. PostgreSQL: see ``registry.store.postgres``.
"""

from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as pysqlite3
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from quotary.errors import Usage
from registry.errors import UnsafeDatabase

# sqlite.org/wal.html, "The WAL-reset bug": fixed in 3.51.3 and in these branches.
FIXED = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
PRAGMAS = (
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("recursive_triggers", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("cell_size_check", "ON", 1),
    ("busy_timeout", "10000", 10000),
    # A transaction of 4096 entries fits, so that hardly a page is written twice before its commit is durable.
    ("cache_size", "-8000", -8000),
    ("wal_autocheckpoint", "8192", 8192),
)
# One process's threads take turns: a query is short, and each connection has a cache of its own.
POOL = {"pool_size": 4, "max_overflow": 4}


def check_sqlite_version(version: tuple[int, int, int]) -> None:
    """Refuse a SQLite whose WAL can corrupt under several processes."""
    major_minor, patch = version[:2], version[2]
    if version >= (3, 51, 3) or patch >= FIXED.get(major_minor, patch + 1):
        return
    found = ".".join(map(str, version))
    raise UnsafeDatabase(
        f"SQLite {found} can corrupt its write-ahead log, wanted 3.51.3, 3.50.7 or 3.44.6 and later",
        next_command="pip install 'quotary[registry]'",
    )


def open_engine(url: str, *, connection_class: type[Any] | None = None, schema: str | None = None) -> Engine:
    """Make an engine for ``sqlite:///PATH`` or ``postgresql+psycopg://...`` with safe settings.

    connection_class: replaces the SQLite connection (the tests' failing one)
    schema:           another one than PostgreSQL's usual one
    """
    try:
        found = make_url(url)
        dialect = found.get_backend_name()
    except ArgumentError as error:
        raise Usage("the database is not an SQLAlchemy URL") from error
    if dialect == "sqlite":
        return _open_sqlite(url, connection_class)
    if dialect == "postgresql":
        # Only those who use it pay for loading it.
        from registry.store.postgres import open_postgresql

        return open_postgresql(found, schema)
    raise Usage(f"databases are sqlite and postgresql, found {dialect}")


def file_of(engine: Engine) -> Path | None:
    """Name SQLite's file; None for a database that is somewhere else."""
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name else None


def _open_sqlite(url: str, connection_class: type[Any] | None) -> Engine:
    check_sqlite_version(pysqlite3.sqlite_version_info)
    arguments: dict[str, Any] = {"check_same_thread": False}
    if connection_class is not None:
        arguments["factory"] = connection_class
    engine = create_engine(url, module=pysqlite3, connect_args=arguments, **POOL)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event below begins; the driver must not
    cursor = connection.cursor()
    for name, wanted, reads in PRAGMAS:
        cursor.execute(f"PRAGMA {name}={wanted}")
        found = cursor.execute(f"PRAGMA {name}").fetchone()
        if found is None or found[0] != reads:
            raise UnsafeDatabase(f"SQLite keeps {name} at {found}, wanted {reads}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("single", False):  # a statement alone is a transaction by itself
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes", False) else "BEGIN")
