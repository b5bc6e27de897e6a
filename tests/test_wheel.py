"""The wheel, installed in a bare environment and run outside the clone."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and the base dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    venv.create(folder / "env", with_pip=False)
    wheel = next(folder.glob("quotary-*.whl"))
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(
            line.split(" ")[0] + "\n"
            for line in (ROOT / "requirements.lock").read_text().splitlines()
            if "==" in line
        )
    )
    into = ["--python", str(folder / "env"), "install", "--constraint", str(constraints), str(wheel)]
    subprocess.run([*pip, *into], check=True, capture_output=True, timeout=300)
    return folder / "env" / "bin"


def run(installed: Path, *words: str, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "quotary"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_answers_outside_the_clone(installed: Path) -> None:
    assert run(installed, "--version").stdout.startswith("quotary")


def test_a_key_can_be_made_with_the_base_distribution(installed: Path, tmp_path: Path) -> None:
    result = run(installed, "keys", "new", str(tmp_path / "key.pem"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("registry", ("registry", "init", "--dir", "log", "--origin", "log.example.org")),
        ("enclave", ("build", "model", "--out", "model")),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_adds_it(
    installed: Path, tmp_path: Path, extra: str, words: tuple[str, ...]
) -> None:
    result = run(installed, *words, folder=tmp_path)
    assert result.returncode == 20, result.stderr
    assert f"pip install 'quotary[{extra}]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "package",
    [
        "web/templates/base.html",
        "web/static/verify.js",
        "web/enclave/page.js",
        "nix/default.nix",
        "migrations/env.py",
    ],
)
def test_data_files_travel_in_the_wheel(installed: Path, package: str) -> None:
    site = next((installed.parent / "lib").glob("python3*/site-packages"))
    assert (site / package).is_file()
