"""Fixtures that every test may use: where the real data lies."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of real data; tests that need it are skipped, by name and count, where it is absent."""
    folder = Path(os.environ.get("QUOTARY_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no vectors at {folder}: set QUOTARY_VECTORS")
    return folder
