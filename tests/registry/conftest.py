"""Databases and logs for the registry's tests."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.fakes import postgres


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """The folder of a real server's programs, or a skip that says what is missing."""
    programs = postgres.programs()
    if programs is None:
        pytest.skip("no PostgreSQL server under /usr/lib/postgresql")
    return programs


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: Path) -> Iterator[postgres.Server]:
    with postgres.started(postgres_programs) as server:
        yield server


@pytest.fixture(scope="session")
def new_postgres(postgres_server: postgres.Server) -> Callable[[], str]:
    """Make an empty database and give its URL."""
    numbers = count()

    def make() -> str:
        name = f"log{next(numbers)}"
        postgres_server.execute(f"CREATE DATABASE {name}")
        return postgres_server.url(name)

    return make
