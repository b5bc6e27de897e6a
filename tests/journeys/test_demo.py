"""The demo, told to its end, and every command that it prints for a second shell."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.processes import ROOT

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed"),
]
PACKAGES = ("quotary", "enclave", "registry", "builder", "simulator", "migrations", "web", "nix")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished demo, and what it said; its program is a copy that nobody edits."""
    folder = copied(tmp_path_factory.mktemp("demo"))
    result = quotary(folder, "demo", "--exit", "--port", "0", seconds=1200)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    return folder, result.stdout


def copied(folder: Path) -> Path:
    """Copy what a demo runs from."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "flake.nix"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "docs", folder / "docs")
    return folder


def quotary(folder: Path, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); from quotary.cli import main; main()", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=seconds, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip


def test_the_story_shows_every_refusal_with_its_exit_code(told: tuple[Path, str]) -> None:
    _, said = told
    ends = [line.split()[2].rstrip(",") for line in said.splitlines() if line.startswith("  exit code ")]
    assert ends == ["20", "12", "12", "11", "10", "12", "11", "11"]
    assert said.count("the running enclave takes no more prompts") == 2
    assert "hint (unproven): the nearest logged release" in said
    assert "mrtd is " in said


def test_the_story_says_simulated_and_never_proves_hardware(told: tuple[Path, str]) -> None:
    _, said = told
    assert "The TEE is SIMULATED" in said
    assert "SIMULATED" in said.split("7. The enclave serves")[1]


def test_no_traceback_reaches_the_reader(told: tuple[Path, str]) -> None:
    folder, said = told
    logs = [path.read_text("utf-8", "replace") for path in (folder / "var" / "demo" / "run").glob("*.log")]
    assert "Traceback" not in said + "".join(logs)


def test_every_printed_command_repeats_its_verdict_with_the_registry_stopped(told: tuple[Path, str]) -> None:
    folder, said = told
    repeats = json.loads((folder / "var" / "demo" / "run" / "repeat.json").read_text())
    assert len(repeats) == said.count("repeat it (")
    assert len(repeats) >= 8
    for repeat in repeats:
        assert repeat["offline"]
        result = quotary(folder, *repeat["words"])
        assert result.returncode == repeat["exit_code"], (repeat["title"], result.stdout, result.stderr)


def test_a_changed_file_makes_its_command_fail(told: tuple[Path, str]) -> None:
    """One bit, in the middle of a proof or bundle, in the bundle and in the receipt of an evidence file."""
    folder, _ = told
    run = folder / "var" / "demo" / "run"
    for repeat in json.loads((run / "repeat.json").read_text()):
        path = folder / repeat["words"][1]
        good = path.read_bytes()
        kept = path.name.endswith(".evidence.json")
        places = (len(good) // 10, good.index(b'"receipt"') + 600) if kept else (len(good) // 2,)
        for place in places:
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            try:
                result = quotary(folder, *repeat["words"])
            finally:
                path.write_bytes(good)
            assert result.returncode in (10, 30), (repeat["title"], place, result.stdout, result.stderr)


def test_a_second_demo_in_the_same_folder_is_told_apart(told: tuple[Path, str]) -> None:
    """Running it twice is safe: what the first left is replaced, and its memory does not refuse the second."""
    folder, _ = told
    with open(folder / "var" / "demo" / "run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = quotary(folder, "demo", "--exit", "--port", "0")
    assert result.returncode == 2
    assert "another demo runs" in result.stderr


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
def test_the_whole_image_is_refused_rebuilt_bit_for_bit_and_then_serves(tmp_path: Path) -> None:
    """``make demo VM=1``: the ``cpu`` image built twice in different stores, booted unlogged and logged."""
    folder = copied(tmp_path)
    result = quotary(folder, "demo", "--vm", "--exit", "--port", "0", seconds=1700)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    chapter = result.stdout.split("The whole image, with torch")[1].split("\n10. ")[0]
    assert "exit code 12, as it must be." in chapter
    rebuilt = json.loads((folder / "var" / "demo" / "run" / "vm-rebuild.json").read_text())
    assert rebuilt["predicate"]["verdict"] == "match"
    assert "detail" not in rebuilt["predicate"]  # which would name the first artefact that differs
    assert "verified" in chapter.split("quotary chat")[1]
