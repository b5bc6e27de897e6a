"""What needs a real GPU; each test is skipped, by name and count, where there is none (docs/gpu.md).

Nothing here needs cryptography, Flask or the other tests' fixtures, so that a machine that was rented for its
GPU runs it as it comes: torch, transformers, click, pytest and nvidia-ml-py.
"""

from pathlib import Path

import pytest

from builder.model import MadeModel, make_model
from enclave.weights import Weights, read_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cuda() -> str:
    """The device; a skip where there is none."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here: docs/gpu.md says how to run this on a machine that has one")
    return "cuda"


@pytest.fixture(scope="session")
def made(cuda: str, tmp_path_factory: pytest.TempPathFactory) -> MadeModel:
    return make_model(tmp_path_factory.mktemp("model"), source=ROOT / "quotary", steps=5)


@pytest.fixture(scope="session")
def weights(made: MadeModel) -> Weights:
    return read_weights(made.folder, made.digest)
