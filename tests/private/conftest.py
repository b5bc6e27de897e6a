"""The released and measured machine that everything here leads to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.pki import PKI
from simulator.tdx import Platform
from tests.fakes.key_nodes import Village
from tests.fakes.machine import World, hardware


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def world(vendor: tuple[PKI, Platform]) -> World:
    return World(*vendor).publish()


@pytest.fixture
def strangers(tmp_path: Path, world: World) -> Iterator[Village]:
    """Nodes that run and hold nothing yet."""
    found = Village(tmp_path, world)
    found.start()
    yield found
    found.close()


@pytest.fixture
def village(strangers: Village) -> Village:
    """Nodes that hold a key."""
    strangers.hold(strangers.proposal())
    return strangers
