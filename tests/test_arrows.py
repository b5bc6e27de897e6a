"""The arrows between packages: import-linter must turn red when one points upwards."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("quotary", "registry", "builder", "enclave", "private", "simulator", "verifier")


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("quotary/tlog/merkle.py", "import quotary.client"),
        ("quotary/attestation/facts.py", "import quotary.statements"),
        ("quotary/statements/envelope.py", "import quotary.client"),
        ("quotary/client/policy.py", "import registry"),
        ("registry/app.py", "import quotary.client"),
        ("enclave/boot.py", "import simulator"),
        ("verifier/judge.py", "import registry"),
        ("quotary/tlog/note.py", "import urllib3"),
        ("registry/upload.py", "import obstore"),
    ],
)
def test_an_import_that_points_upwards_is_refused(tree: Path, module: str, statement: str) -> None:
    with (tree / module).open("a") as file:
        file.write(f"\n{statement}  # noqa\n")
    result = lint(tree)
    assert result.returncode == 1, result.stdout


def test_the_arrows_hold_today(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout
