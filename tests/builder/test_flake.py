"""The flake: it evaluates, and fetchers of nixpkgs' kind lead to the very paths that prefetched inputs have.

nixpkgs itself is not here: a stand-in with the two functions that are used takes its place, so what is shown is
that the expressions fit together and name the right paths and addresses, not that a download works.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.lock import Lock, store_path
from builder.nix import Nix
from tests.builder.test_images import snapshot
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="Nix is not installed")

# What nixpkgs' fetchurl and runCommand make, as far as paths go: fixed outputs by name and hash.
PACKAGES = """
let fixed = { name, hash, mode, more }: derivation ({
  inherit name; system = "x86_64-linux"; builder = "/none"; outputHash = hash; outputHashMode = mode;
  outputHashAlgo = "sha256"; } // more);
in {
  dpkg = "/dpkg";
  fetchurl = { name, sha256, urls }: fixed { inherit name; hash = sha256; mode = "flat"; more = { inherit urls; }; };
  runCommand = name: { outputHash, outputHashMode, outputHashAlgo, nativeBuildInputs }: script:
    fixed { inherit name; hash = outputHash; mode = outputHashMode; more = { inherit script nativeBuildInputs; }; };
}
"""
ASK = """
let
  pkgs = %s;
  source = %s;
  fetch = import (source + "/nix/fetch.nix") { inherit pkgs; };
  read = name: builtins.fromJSON (builtins.readFile (source + "/nix/lock/${name}"));
  inputs = fetch: import (source + "/nix/inputs.nix") {
    debian = read "debian.json"; pypi = read "pypi.json"; system = "x86_64-linux"; inherit fetch;
  };
  paths = inputs: map (key: (inputs.deb key).outPath) (builtins.attrNames (read "debian.json").debs)
    ++ map (key: (inputs.wheel key).path.outPath) (builtins.attrNames (read "pypi.json").wheels)
    ++ [ inputs.seed.outPath ];
  image = fetch: (import (source + "/nix") { profile = "ci"; inherit fetch; }).boot.outPath;
  flake = ((import (source + "/flake.nix")).outputs { self = null; }).lib.withNixpkgs { inherit pkgs; };
  some = inputs fetch;
in {
  theirs = paths (inputs fetch); ours = paths (inputs null);
  boot = [ (image fetch) (image null) flake.ci.boot.outPath ];
  urls = map (key: (some.deb key).urls) (builtins.attrNames (read "debian.json").debs)
    ++ map (key: (some.wheel key).path.urls) (builtins.attrNames (read "pypi.json").wheels);
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    snapshot(tmp_path / "source")
    shutil.copyfile(ROOT / "flake.nix", tmp_path / "source" / "flake.nix")
    return tmp_path / "source"


def ask(nix: Nix, words: list[str]) -> str:
    done = subprocess.run(
        words, env=nix._environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_fetchers_of_nixpkgs_lead_to_the_same_inputs_and_the_same_image(tmp_path: Path, source: Path) -> None:
    nix = Nix.open(tmp_path / "store")
    words = ["nix-instantiate", "--store", str(nix.store), "--eval", "--strict", "--json", "--expr"]
    found = json.loads(ask(nix, [*words, ASK % (PACKAGES, source)]))
    lock = Lock.load(ROOT / "nix" / "lock")
    assert found["theirs"] == found["ours"]
    assert set(found["ours"][:-1]) == {store_path(item) for item in lock.inputs()}
    assert len(set(found["boot"])) == 1
    urls = {url for group in found["urls"] for url in group}
    assert len(urls) == len(lock.debs) + len(lock.wheels)
    for deb in lock.debs.values():
        archive = "debian-security" if deb.suite.endswith("-security") else "debian"
        assert f"https://deb.debian.org/{archive}/{deb.path}" in urls
    flask = next(one for one in lock.wheels.values() if one.name == "flask")
    assert f"https://files.pythonhosted.org/packages/py3/f/flask/{flask.filename}" in urls


def test_the_flake_shows_its_packages(tmp_path: Path, source: Path) -> None:
    nix = Nix.open(tmp_path / "store")
    words = ["nix", "--store", str(nix.store), "flake", "show", "--json", f"path:{source}"]
    found = json.loads(ask(nix, words))["packages"]["x86_64-linux"]
    assert {"ci-boot", "cpu-boot", "kernel"} <= found.keys()
    assert {one["type"] for one in found.values()} == {"derivation"}
