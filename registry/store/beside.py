"""A new database beside the registry's, which takes its place only when everything in it was checked.

SQLite: a file in the same folder. PostgreSQL: a schema of the same database, so that the change is one
transaction. What lay in its place is kept beside it, under a name with the time.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, text
from sqlalchemy.schema import CreateSchema, DropSchema

from quotary.errors import CannotTell, Usage
from registry.flush import SUFFIX
from registry.store import Store, create_store
from registry.store.engine import open_engine
from registry.store.faults import translated

PREFIX = "sqlite:///"


class Beside(Protocol):
    """Somewhere empty."""

    def create(self) -> AbstractContextManager[Store]:
        """Make the tables, open them, and see at the end that what was written is there."""
        ...

    def settle(self) -> None:
        """Take the place of the registry's database."""
        ...


@contextmanager
def beside(url: str) -> Iterator[Beside]:
    """Make room for a new database; what is not settled at the end is removed.

    Raises ``Usage`` where a sequencer of another machine leads the present one.
    """
    if url.startswith(PREFIX):
        target = Path(url.removeprefix(PREFIX))
        new = target.with_name(f".{target.name}.new")
        remove_file(new)
        try:
            yield _File(new, target)
        finally:
            remove_file(new)
        return
    engine = open_engine(url)
    try:
        with _leading(engine):
            schema = _Schema(engine, url)
            schema.remove()
            try:
                yield schema
            finally:
                schema.remove()
    finally:
        engine.dispose()


def settle_file(new: Path, target: Path) -> None:
    """Make a new file durable and give it its name."""
    for path in (new, new.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == new:
            new.replace(target)


def remove_file(path: Path) -> None:
    """Remove a SQLite database that nobody needs."""
    for suffix in ("", "-wal", "-shm", "-journal", SUFFIX):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _File:
    def __init__(self, new: Path, target: Path) -> None:
        self._new = new
        self._target = target

    @contextmanager
    def create(self) -> Iterator[Store]:
        with closing(create_store(PREFIX + str(self._new))) as store:
            yield store
        _require_whole(self._new)

    def settle(self) -> None:
        for suffix in (SUFFIX, "-wal", "-shm", ""):
            old = self._target.with_name(self._target.name + suffix)
            if old.exists():
                old.rename(self._target.with_name(f"{self._target.name}.before-{_stamp()}{suffix}"))
        settle_file(self._new, self._target)


class _Schema:
    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = url
        with translated(), engine.connect() as connection:
            name = connection.scalar(text("SELECT current_schema()"))
        if name is None:
            raise CannotTell("the database has no schema for this role", next_command="CREATE SCHEMA public")
        self._name = str(name)
        self._new = f"{name}_new"

    @contextmanager
    def create(self) -> Iterator[Store]:
        with translated(), self._engine.begin() as connection:
            connection.execute(CreateSchema(self._new))
        with closing(create_store(self._url, schema=self._new)) as store:
            yield store

    def settle(self) -> None:
        quote = self._engine.dialect.identifier_preparer.quote
        new, name = quote(self._new), quote(self._name)
        before = quote(f"{self._name}_before_{_stamp()}".lower())
        with translated(), self._engine.begin() as connection:
            connection.execute(text(f"ALTER SCHEMA {name} RENAME TO {before}"))
            connection.execute(text(f"ALTER SCHEMA {new} RENAME TO {name}"))

    def remove(self) -> None:
        with translated(), self._engine.begin() as connection:
            connection.execute(DropSchema(self._new, cascade=True, if_exists=True))


@contextmanager
def _leading(engine: Engine) -> Iterator[None]:
    from registry.store.postgres import lead

    lease = lead(engine)
    if lease is None:
        raise Usage("a sequencer leads this database", next_command="stop every sequencer")
    try:
        yield
    finally:
        lease.close()


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _require_whole(path: Path) -> None:
    """Raise ``CannotTell`` unless everything that was written to a closed SQLite database is in its file.

    SQLite moves its write-ahead log into the file as the last connection closes, and says nothing where that
    fails; then the log still lies there, and the file alone lacks what it holds.
    """
    if path.with_name(f"{path.name}-wal").exists():
        raise CannotTell(f"{path} was not written whole: its write-ahead log could not be moved into it")
