"""The registry's database: the only place that speaks SQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, inspect, text

from quotary.errors import Usage
from registry.errors import WrongSchema
from registry.store.engine import open_engine
from registry.store.faults import translated
from registry.store.read import Reader
from registry.store.rows import EMPTY_HEAD, Batch, Head, OutcomeRow, Published, Signed, Waiting
from registry.store.schema import REVISION
from registry.store.write import Writer

__all__ = [
    "EMPTY_HEAD",
    "Batch",
    "Head",
    "OutcomeRow",
    "Published",
    "Reader",
    "Signed",
    "Store",
    "Waiting",
    "Writer",
    "create_store",
    "open_store",
]


# Any number that no other program on the same server takes: "quot" in ASCII.
LEADER = 0x71756F74


@dataclass(frozen=True, slots=True)
class Store:
    """One open database."""

    engine: Engine
    read: Reader
    write: Writer

    @contextmanager
    def leadership(self) -> Iterator[None]:
        """Hold the sequencer's lock in PostgreSQL for a session; SQLite's is a file beside the database."""
        if self.engine.dialect.name != "postgresql":
            yield
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LEADER}):
                raise Usage("another sequencer leads this database", next_command="stop the other sequencer")
            try:
                yield
            finally:
                connection.scalar(text("SELECT pg_advisory_unlock(:key)"), {"key": LEADER})

    def close(self) -> None:
        self.engine.dispose()


def open_store(url: str, *, connection_class: type[Any] | None = None) -> Store:
    """Open a database that has exactly this code's schema."""
    engine = open_engine(url, connection_class=connection_class)
    with translated():
        _check_schema(engine)
    return Store(engine, Reader(engine), Writer(engine))


def create_store(url: str) -> Store:
    """Make or upgrade the tables, and open the database."""
    # Alembic is only needed here, and every process of a registry would pay for it at its start.
    from registry.store.migrate import upgrade

    engine = open_engine(url)
    with translated():
        upgrade(engine)
    engine.dispose()
    return open_store(url)


def _check_schema(engine: Engine) -> None:
    """Raise ``WrongSchema`` unless the database has exactly this code's revision."""
    found = ""
    if inspect(engine).has_table("alembic_version"):
        with engine.connect() as connection:
            found = connection.scalar(text("SELECT version_num FROM alembic_version")) or ""
    if found != REVISION:
        raise WrongSchema(
            f"the database has schema {found or 'none'}, this code needs {REVISION}",
            next_command="quotary registry upgrade" if found < REVISION else "install the newer Quotary",
        )
