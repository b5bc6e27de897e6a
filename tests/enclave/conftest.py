"""A real model, trained for one step, made once for all tests of the enclave."""

from pathlib import Path

import pytest

from builder.model import MadeModel, make_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> MadeModel:
    return make_model(tmp_path_factory.mktemp("model"), source=ROOT / "quotary", steps=1)
