"""The registry's database: the only place that speaks SQL."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from registry.store.engine import open_engine
from registry.store.faults import translated
from registry.store.migrate import check_schema, upgrade
from registry.store.read import Reader
from registry.store.rows import Batch, Head, OutcomeRow, Published, Signed, Waiting
from registry.store.write import Writer

__all__ = [
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


@dataclass(frozen=True, slots=True)
class Store:
    """One open database."""

    engine: Engine
    read: Reader
    write: Writer

    def close(self) -> None:
        self.engine.dispose()


def open_store(url: str, *, connection_class: type[Any] | None = None) -> Store:
    """Open a database that has exactly this code's schema."""
    engine = open_engine(url, connection_class=connection_class)
    with translated():
        check_schema(engine)
    return Store(engine, Reader(engine), Writer(engine))


def create_store(url: str) -> Store:
    """Make or upgrade the tables, and open the database."""
    engine = open_engine(url)
    with translated():
        upgrade(engine)
    engine.dispose()
    return open_store(url)
