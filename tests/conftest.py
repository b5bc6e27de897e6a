"""Fixtures that every test may use: where the real data lies, and real PostgreSQL databases."""

import os
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes import postgres

ROOT = Path(__file__).resolve().parent.parent

# How fast a busy machine makes examples says nothing about our code, and fails no test.
settings.register_profile("quotary", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quotary")


@pytest.fixture(scope="session", autouse=True)
def recursion_limit() -> None:
    """Python's own limit: ``py_ecc`` (of eth-account) sets 100,000 when it is imported, and with that much
    depth a parser meets the end of the stack, and the process its own, before it meets the limit.
    """
    sys.setrecursionlimit(1000)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of real data; tests that need it are skipped, by name and count, where it is absent."""
    folder = Path(os.environ.get("QUOTARY_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no vectors at {folder}: set QUOTARY_VECTORS")
    return folder


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
