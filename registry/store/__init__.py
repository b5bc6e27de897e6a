"""The registry's database: the only place that speaks SQL."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine, inspect, text

from registry.errors import WrongSchema
from registry.store.engine import file_of, open_engine
from registry.store.faults import translated
from registry.store.read import Reader
from registry.store.rows import EMPTY_HEAD, Batch, Head, OutcomeRow, Published, Signed, StateRows, Waiting
from registry.store.schema import REVISION
from registry.store.state import States, StoredState
from registry.store.write import Writer

__all__ = [
    "EMPTY_HEAD",
    "Batch",
    "Head",
    "Lease",
    "OutcomeRow",
    "Published",
    "Reader",
    "Signed",
    "StateRows",
    "States",
    "Store",
    "StoredState",
    "Waiting",
    "Writer",
    "create_store",
    "open_store",
]


class Lease(Protocol):
    """The right to be the one sequencer."""

    def check(self) -> None:
        """Raise ``LeadershipLost`` where it is over."""
        ...

    def close(self) -> None: ...


class FileLease:
    """SQLite's: the lock is a file beside the database, and ends with the process that holds it."""

    def check(self) -> None:
        """Nothing else can take it."""

    def close(self) -> None:
        """The file's lock is let go by whoever took it."""


@dataclass(frozen=True, slots=True)
class Store:
    """One open database."""

    engine: Engine
    read: Reader
    write: Writer

    @property
    def is_shared(self) -> bool:
        """Say whether several machines can work on it."""
        return self.engine.dialect.name == "postgresql"

    @property
    def file(self) -> Path | None:
        """Name the file that holds it, where it is one."""
        return file_of(self.engine)

    def lead(self) -> Lease | None:
        """Become the one sequencer; None where another one leads."""
        if not self.is_shared:
            return FileLease()
        from registry.store import postgres

        return postgres.lead(self.engine)

    def check_standbys(self) -> None:
        """Raise ``UnsafeDatabase`` where a standby may lack what was acknowledged."""
        if self.is_shared:
            from registry.store import postgres

            with translated(), self.engine.connect() as connection:
                postgres.check_standbys(connection)

    def close(self) -> None:
        self.engine.dispose()


def open_store(url: str, *, connection_class: type[Any] | None = None, schema: str | None = None) -> Store:
    """Open a database that has exactly this code's schema."""
    engine = open_engine(url, connection_class=connection_class, schema=schema)
    try:
        with translated():
            check_schema(engine)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine, Reader(engine), Writer(engine))


def create_store(url: str, *, schema: str | None = None) -> Store:
    """Make or upgrade the tables, and open the database."""
    # Alembic is only needed here, and every process of a registry would pay for it at its start.
    from registry.store.migrate import upgrade

    engine = open_engine(url, schema=schema)
    try:
        with translated():
            upgrade(engine)
    finally:
        engine.dispose()
    return open_store(url, schema=schema)


def check_schema(engine: Engine) -> None:
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
