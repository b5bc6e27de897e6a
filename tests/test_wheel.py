"""Quotary's own release: built twice to the same bytes, and the wheel installed in a bare environment outside the clone."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from deploy.distribution import LOCKS, PAGE, SBOM, SUMS, make
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "made"
    make(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def installed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and the base dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    venv.create(folder / "env", with_pip=False)
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(
            line.split(" ")[0] + "\n"
            for line in (ROOT / "requirements.lock").read_text().splitlines()
            if "==" in line
        )
    )
    wheel = next(made.glob("quotary-*.whl"))
    into = ["--python", str(folder / "env"), "install", "--constraint", str(constraints), str(wheel)]
    subprocess.run([*pip, *into], check=True, capture_output=True, timeout=300)
    return folder / "env" / "bin"


def run(installed: Path, *words: str, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "quotary"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_a_second_build_under_another_umask_zone_and_folder_has_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    time.tzset()
    before = os.umask(0o077)
    try:
        again = make(ROOT, tmp_path / "again")
    finally:
        os.umask(before)
    assert len(again) == 4
    for path in again:
        assert path.read_bytes() == (made / path.name).read_bytes(), path.name


def test_the_sdist_names_nobody_and_no_time_but_the_commits(made: Path) -> None:
    with tarfile.open(next(made.glob("*.tar.gz"))) as archive:
        members = archive.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    [at] = {member.mtime for member in members}
    said = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, check=True)
    assert at == int(said.stdout)


def test_every_file_of_the_packages_travels(made: Path) -> None:
    packages = (
        "quotary",
        "private",
        "registry",
        "builder",
        "enclave",
        "simulator",
        "verifier",
        "migrations",
        "web",
        "nix",
    )
    listed = subprocess.run(
        ["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = {name for name in listed.stdout.split() if not name.endswith(".md")}
    with zipfile.ZipFile(next(made.glob("*.whl"))) as archive:
        assert wanted - set(archive.namelist()) == set()


def test_the_digests_are_those_of_the_files(made: Path) -> None:
    ran = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=made, capture_output=True, check=False
    )
    assert ran.returncode == 0
    assert len(ran.stdout.splitlines()) == 4
    assert b"connect-src" not in (made / PAGE).read_bytes()


def test_the_bill_of_materials_names_each_pin_with_its_hashes_and_who_wants_it(made: Path) -> None:
    found = json.loads((made / SBOM).read_text())
    locked = {}
    for lock in LOCKS:
        text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
        for pin in re.split(r"\n(?=\S)", text.strip()):
            name, _, rest = pin.partition("==")
            locked[f"pkg:pypi/{name}@{rest.split()[0]}"] = set(re.findall(r"sha256:([0-9a-f]{64})", rest))
    assert all(locked.values()), "every pin has a hash"
    said = {
        one["purl"]: {item["content"] for place in one["externalReferences"] for item in place["hashes"]}
        for one in found["components"]
    }
    assert said == locked
    wants = {one["ref"]: set(one["dependsOn"]) for one in found["dependencies"]}
    root = found["metadata"]["component"]["purl"]
    assert set(wants) == {root, *locked}
    assert {name.split("@")[0].removeprefix("pkg:pypi/") for name in wants[root]} >= {
        "cryptography",
        "click",
        "flask",
    }
    reached, new = set(), {root}
    while new:
        reached |= new
        new = set().union(*(wants[ref] for ref in new)) - reached
    assert reached == set(wants)


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
