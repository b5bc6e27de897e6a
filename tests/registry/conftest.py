"""Databases and logs for the registry's tests."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from sqlalchemy import create_engine, text

from tests.fakes import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real server, or a skip that says what is missing."""
    programs = postgres.programs()
    if programs is None:
        pytest.skip("no PostgreSQL server under /usr/lib/postgresql")
    with postgres.running(programs) as url:
        yield url


@pytest.fixture(scope="session")
def new_postgres(postgres_server: str) -> Callable[[], str]:
    """Make an empty database and give its URL."""
    numbers = count()

    def make() -> str:
        name = f"log{next(numbers)}"
        engine = create_engine(postgres_server.format(name="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return postgres_server.format(name=name)

    return make
