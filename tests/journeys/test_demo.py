"""The demo, told to its end, and every command that it prints for a second shell."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder.lock import Lock, lock_sha256
from tests.fakes.processes import ROOT

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed"),
]
PACKAGES = ("quotary", "enclave", "registry", "builder", "simulator", "migrations", "web", "nix")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished demo, and what it said; its program is a copy that nobody edits.

    One package of its lock has left the archive, as happens to every lock one day.
    """
    folder = copied(tmp_path_factory.mktemp("demo"))
    withdraw(folder / "nix" / "lock", "zstd")
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


def withdraw(folder: Path, name: str) -> None:
    """Lock a version of a Debian package that no archive has."""
    lock = Lock.load(folder)
    old = next(deb for deb in lock.debs.values() if deb.name == name)
    gone = replace(old, version=old.version + "~gone", sha256="0" * 64)
    debs = {
        gone.key if key == old.key else key: gone if key == old.key else deb for key, deb in lock.debs.items()
    }
    groups = {
        group: tuple(gone.key if key == old.key else key for key in keys)
        for group, keys in lock.deb_groups.items()
    }
    replace(lock, debs=debs, deb_groups=groups).save(folder)


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


def test_a_lock_with_a_withdrawn_input_gives_a_different_image_that_says_so(told: tuple[Path, str]) -> None:
    folder, said = told
    chapter = said.split("4. An image")[1].split("\n5. ")[0]
    assert "a different image than the committed lock's:" in chapter
    assert re.search(r"~ zstd \S+~gone -> ", chapter)
    run = folder / "var" / "demo" / "run"
    recorded = json.loads((run / "image" / "build.json").read_text())["lock_sha256"]
    assert recorded == lock_sha256(run / "image" / "lock") != lock_sha256(folder / "nix" / "lock")
    assert json.loads((run / "rebuild.json").read_text())["predicate"]["verdict"] == "match"


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
