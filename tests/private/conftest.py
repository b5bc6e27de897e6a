"""The released and measured machine that everything here leads to."""

import pytest

from tests.fakes.machine import World, hardware


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(*hardware(tmp_path_factory.mktemp("vendor"))).publish()
