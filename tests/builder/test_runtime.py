"""The runtime (torch, transformers and what they need): a disk of its own, with a lifetime of its own."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.build import Recipe
from builder.nix import Nix
from builder.rebuild import settings_of
from tests.builder.test_guest import BOOT, assembled, what
from tests.builder.test_images import snapshot
from tests.conftest import ROOT

ASK = """
let it = import %(source)s/nix { profile = "cpu"; lock = "%(lock)s"; source = "%(source)s"; };
in { rootfs = it.rootfs.outPath; runtime = it.runtime.outPath; boot = it.boot.outPath; }
"""


def runtime(tmp_path: Path, root: str = "cd" * 32, listed: str = "usr/lib/torch.py") -> dict[str, object]:
    """Write what the last step of a build is given where there is a runtime."""
    folder = tmp_path / "runtime"
    folder.mkdir(exist_ok=True)
    (folder / "runtime.img").write_text("runtime")
    (folder / "runtime.tsv").write_text(f"{listed}\t644\t1\tab\n")
    (folder / "verity.json").write_text(
        json.dumps({"root": root, "blocks": 9, "salt": "ef" * 32, "label": "runtime"})
    )
    given = what(tmp_path, runtime=str(folder), initrd=None)
    (tmp_path / "rootfs" / "files.tsv").write_text("usr/lib/os.py\t644\t1\tab\n")
    return given


def test_the_command_line_pins_the_runtime_behind_the_root(tmp_path: Path) -> None:
    BOOT.build(runtime(tmp_path), tmp_path / "out", assembled)
    line = (tmp_path / "out" / "cmdline").read_text()
    assert f" quotary.runtime={'cd' * 32}:9:{'ef' * 32}" in line
    assert "dm-mod.waitfor=/dev/vdb " in line
    assert f"runtime,,1,ro,0 72 verity 1 /dev/vdb /dev/vdb 4096 4096 9 10 sha256 {'cd' * 32}" in line
    described = json.loads((tmp_path / "out" / "boot.json").read_text())
    assert [disk["serial"] for disk in described["disks"]] == ["rootfs", "runtime"]
    assert "runtime.img" in described["files"]
    assert settings_of(line) == {}


def test_another_runtime_is_another_command_line_and_so_another_measurement(tmp_path: Path) -> None:
    lines = []
    for number, root in enumerate(("cd" * 32, "ce" * 32)):
        BOOT.build(runtime(tmp_path, root), tmp_path / str(number), assembled)
        lines.append((tmp_path / str(number) / "cmdline").read_text())
    assert lines[0] != lines[1]
    assert lines[0] == lines[1].replace("ce" * 32, "cd" * 32)


def test_two_disks_that_both_have_a_file_stop_the_build(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"root and runtime both have usr/lib/os\.py"):
        BOOT.build(runtime(tmp_path, listed="usr/lib/os.py"), tmp_path / "out", assembled)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("profile", ["cpu", "cpu-debian", "nitro"])
def test_profiles_that_serve_have_a_runtime_and_the_small_one_has_none(profile: str) -> None:
    recipe = Recipe(ROOT, profile, ROOT / "nix" / "lock")
    assert recipe.artefacts()["runtime"] == ("runtime.img", "runtime.tsv")
    debs, wheels = recipe.groups()
    assert ("torch" in debs, wheels) == (True, ("ci", "cpu"))
    small = Recipe(ROOT, "ci", ROOT / "nix" / "lock")
    assert "runtime" not in small.artefacts()
    assert "torch" not in small.groups()[0]


@pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="Nix is not installed")
def test_the_root_does_not_follow_from_the_runtime_nor_the_runtime_from_the_root(tmp_path: Path) -> None:
    """A derivation whose inputs are the same is the same output path, and gives the same bytes."""
    source = snapshot(tmp_path / "source").source
    nix = Nix.open(tmp_path / "store")
    before = paths(nix, source, source / "nix" / "lock")
    lock = tmp_path / "lock"
    shutil.copytree(source / "nix" / "lock", lock)
    debian = json.loads((lock / "debian.json").read_bytes())
    (torch,) = (key for key in debian["groups"]["torch"] if key.startswith("libtorch"))
    debian["debs"][torch]["sha256"] = "ab" * 32
    (lock / "debian.json").write_text(json.dumps(debian))
    newer = paths(nix, source, lock)
    assert newer["rootfs"] == before["rootfs"]
    assert newer["runtime"] != before["runtime"]
    assert newer["boot"] != before["boot"]
    (source / "quotary" / "more.py").write_text("more = 1\n")
    changed = paths(nix, source, source / "nix" / "lock")
    assert changed["rootfs"] != before["rootfs"]
    assert changed["runtime"] == before["runtime"]
    assert changed["boot"] != before["boot"]


def paths(nix: Nix, source: Path, lock: Path) -> dict[str, str]:
    words = ["nix-instantiate", "--store", str(nix.store), "--eval", "--strict", "--json", "--expr"]
    done = subprocess.run(
        [*words, ASK % {"source": source, "lock": lock}],
        env=nix._environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found
