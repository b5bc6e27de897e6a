"""One simulated vendor and machine for all judgements; making keys takes longer than using them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.client.opener import Opener
from simulator.nitro import NitroVendor
from simulator.pki import PKI
from simulator.snp import SNPVendor
from simulator.tdx import Platform
from tests.fakes.machine import World, hardware
from tests.fakes.platforms import nitro_vendor, snp_vendor


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="session")
def pair() -> Iterator[Opener]:
    """Two processes for as many audits as there are."""
    with Opener(2, least=0) as opened:
        yield opened


@pytest.fixture
def world(vendor: tuple[PKI, Platform]) -> World:
    return World(*vendor).publish()


@pytest.fixture(scope="session")
def vendor_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("other-vendor")


@pytest.fixture(scope="session")
def snp_keys(tmp_path_factory: pytest.TempPathFactory) -> SNPVendor:
    return snp_vendor(tmp_path_factory.mktemp("amd"))


@pytest.fixture(scope="session")
def nitro_keys(tmp_path_factory: pytest.TempPathFactory) -> NitroVendor:
    return nitro_vendor(tmp_path_factory.mktemp("aws"))
