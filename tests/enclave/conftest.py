"""A real model, trained for one step, made once for all tests of the enclave, and an enclave that serves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.model import MadeModel, make_model
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from tests.enclave.api_site import Site, build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> MadeModel:
    return make_model(tmp_path_factory.mktemp("model"), source=ROOT / "quotary", steps=1)


@pytest.fixture(scope="module")
def loaded(model: MadeModel) -> TransformerModel:
    return TransformerModel(read_weights(model.folder, model.digest), threads=1)


@pytest.fixture
def site(model: MadeModel, loaded: TransformerModel) -> Iterator[Site]:
    made = build(model)
    made.enclave.start(lambda digest: loaded)
    yield made
    made.enclave.close()
