"""A source in miniature, in a git repository of its own: the real Nix builds it in a second.

Its derivations run the locked busybox and copy the files of an image folder, so that a test decides what a
build of a commit gives: the same bytes, others, or nothing.
"""

import json
import shutil
import subprocess
from pathlib import Path

from builder.build import Recipe, inputs_sha256
from builder.lock import DEBIAN, PYPI, Lock, lock_sha256
from tests.conftest import ROOT

DEFAULT = """
{ system ? "x86_64-linux", profile ? "", lock ? "", source ? "", model ? "", policySha256 ? "", settings ? "" }:
let
  read = name: builtins.fromJSON (builtins.readFile (/. + lock + "/${name}"));
  inputs = import ./inputs.nix { debian = read "debian.json"; pypi = read "pypi.json"; inherit system; };
  lib = import ./lib.nix { inherit inputs system; };
  part = name: names: lib.sh {
    inherit name; script = ./copy.sh; files = map (file: lib.file (./files + "/${file}")) names;
  };
in {
  kernel = part "kernel" [ "vmlinuz" ];
  initrd = part "initrd" [ "initrd.img" ];
  firmware = part "firmware" [ "firmware" ];
  rootfs = part "rootfs" [ "rootfs.img" "files.tsv" ];
  boot = part "boot" [ "cmdline" "enclave.efi" "boot.json" ];
  seed-check = part "seed-check" [ ];
}
"""
COPY = 'mkdir "$out"\nfor file in $files; do cp "$file" "$out/${file#*-}"; done\n'
PROFILES = {
    "profiles": {"ci": {"kernel": "debian", "ramdisk": True, "debs": [], "wheels": []}},
    "kernels": {"debian": {"groups": ["kernel"], "words": []}},
}
SPEC = {
    "version": 1,
    "suites": [{"name": "trixie", "archive": "debian"}],
    "seed": {"package": "busybox-static", "member": "usr/bin/busybox"},
    "debs": {"tools": [], "kernel": [], "firmware": [], "initrd": [], "uki": []},
    "python": "3.13",
    "wheels": {},
    "without": [],
}


def write_source(folder: Path, image: Path, copy: str = COPY) -> None:
    """Write a source whose build gives the files of an image folder."""
    nix = folder / "nix"
    shutil.rmtree(nix, ignore_errors=True)
    (nix / "scripts").mkdir(parents=True)
    (nix / "files").mkdir()
    for name in ("vmlinuz", "initrd.img", "firmware", "rootfs.img", "files.tsv", "cmdline", "boot.json"):
        shutil.copyfile(image / name, nix / "files" / name)
    (nix / "files" / "enclave.efi").write_bytes(b"not started by these tests")
    for name in ("inputs.nix", "lib.nix", "scripts/setup.sh"):
        shutil.copyfile(ROOT / "nix" / name, nix / name)
    (nix / "default.nix").write_text(DEFAULT)
    (nix / "copy.sh").write_text(copy)
    (nix / "image.json").write_text(json.dumps(PROFILES))
    lock = Lock.load(ROOT / "nix" / "lock")
    seed = {lock.seed_package: lock.debs[lock.seed_package]}
    groups = {"tools": (), "kernel": (), "firmware": (), "initrd": (), "uki": ()}
    named = (lock.seed_package, lock.seed_member, lock.seed_nar_sha256)
    Lock(*named, deb_groups=groups, debs=seed, wheel_groups={}, wheels={}).save(nix / "lock")
    (nix / "lock" / "spec.json").write_text(json.dumps(SPEC))


def commit(folder: Path) -> str:
    """Commit everything in the folder and return the commit's id."""
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=30)
    subprocess.run([*git, "add", "-A"], check=True, timeout=30)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "next"], check=True, timeout=30)
    asked = [*git, "rev-parse", "HEAD"]
    return subprocess.run(asked, check=True, timeout=30, capture_output=True, text=True).stdout.strip()


def claim(image: Path, folder: Path, revision: str) -> None:
    """Let an image folder say that it was built from a commit of the source in ``folder``."""
    record = json.loads((image / "build.json").read_bytes())
    record["source"]["revision"] = revision
    recipe = Recipe(folder, "ci", folder / "nix" / "lock")
    record["inputs"] = {"sha256": inputs_sha256(recipe), "debs": recipe.groups()[0], "wheels": []}
    record["lock_sha256"] = lock_sha256(folder / "nix" / "lock")
    (image / "build.json").write_text(json.dumps(record))
    for name in (DEBIAN, PYPI):
        shutil.copyfile(folder / "nix" / "lock" / name, image / "lock" / name)
