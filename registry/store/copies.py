"""Copies of a database: into a SQLite file while it is in use, and from such a file into any database.

The file is a whole registry's database, whichever server it came from. So a backup is also the way from
SQLite to PostgreSQL and back, and it can be looked at with the tools of SQLite.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as pysqlite3
from sqlalchemy import Engine, create_engine, select

from quotary.errors import CannotTell
from registry.errors import WrongSchema
from registry.store import Store, bulk, check_schema, create_store
from registry.store.beside import PREFIX
from registry.store.faults import translated
from registry.store.schema import metadata

PAGES_A_STEP = 1024
ROWS = 1024


def save(store: Store, out: Path) -> None:
    """Write a new file with everything that one moment of the database holds."""
    try:
        if store.is_shared:
            with closing(create_store(PREFIX + str(out))) as copy:
                fill(store.engine, copy)
        else:
            _save_pages(store, out)
        with closing(_connect(out)) as connection:
            _check_pages(connection, out)
            # A single file is easier to carry than one with a write-ahead log beside it.
            connection.execute("PRAGMA journal_mode=DELETE")
    except pysqlite3.Error as error:
        raise CannotTell(f"no backup was made: {error}") from error


@contextmanager
def saved(file: Path) -> Iterator[Engine]:
    """Open a backup to be read only, after a look at its pages and its schema."""
    if not file.is_file():
        raise CannotTell(f"{file} is no file")
    place = f"file:{file.resolve()}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", module=pysqlite3, creator=lambda: pysqlite3.connect(place, uri=True))
    try:
        with closing(pysqlite3.connect(place, uri=True)) as connection:
            _check_pages(connection, file)
        with translated():
            check_schema(engine)
        yield engine
    except WrongSchema as error:
        advice = "restore it with the Quotary that made it, then quotary registry upgrade"
        raise WrongSchema(f"{file}: {error}", next_command=advice) from error
    except pysqlite3.Error as error:
        raise CannotTell(f"{file} is not a backup: {error}") from error
    finally:
        engine.dispose()


def fill(source: Engine, target: Store) -> None:
    """Copy every row of one moment into new tables, in the order of the keys, as the triggers demand it."""
    level = {"isolation_level": "REPEATABLE READ"} if source.dialect.name == "postgresql" else {}
    writing = target.engine.execution_options(writes=True)
    with translated(), source.connect().execution_options(yield_per=ROWS, **level) as reading:
        for table in metadata.sorted_tables:
            query = select(*bulk.given(table)).order_by(*table.primary_key.columns)
            for rows in reading.execute(query).partitions():
                with writing.begin() as connection:
                    bulk.insert(connection, table, [tuple(row) for row in rows])


def _save_pages(store: Store, out: Path) -> None:
    database = store.engine.url.database
    assert database is not None
    with closing(_connect(Path(database))) as live, closing(_connect(out)) as copy:
        live.backup(copy, pages=PAGES_A_STEP)


def _connect(path: Path) -> Any:
    return pysqlite3.connect(str(path), timeout=10.0)


def _check_pages(connection: Any, path: Path) -> None:
    found = connection.execute("PRAGMA integrity_check").fetchone()
    if found != ("ok",):
        raise CannotTell(f"{path} is damaged: {str(found)[:200]}")
