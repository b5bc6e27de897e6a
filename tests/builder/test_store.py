"""Store paths and archive hashes, held against Nix itself where it is installed."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.nix import Nix
from builder.store import base32, flat_path, nar_sha256, safe_name, tree_path

EMPTY = hashlib.sha256(b"").hexdigest()
needs_nix = pytest.mark.skipif(shutil.which("nix-store") is None, reason="Nix is not installed")


def test_a_version_becomes_a_name_that_the_store_allows() -> None:
    assert safe_name("libc6_1:2.41-12+deb13u4~x_amd64.deb") == "libc6_1-2.41-12+deb13u4-x_amd64.deb"


def test_base_32_is_the_one_of_nix() -> None:
    assert base32(hashlib.sha256(b"").digest()) == "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"


def test_the_archive_of_a_file_a_link_and_a_folder_differ(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    plain = nar_sha256(tmp_path / "file")
    (tmp_path / "file").chmod(0o755)
    (tmp_path / "link").symlink_to("file")
    hashes = {plain, nar_sha256(tmp_path / "file"), nar_sha256(tmp_path / "link"), nar_sha256(tmp_path)}
    assert len(hashes) == 4


@needs_nix
def test_paths_computed_here_are_those_that_nix_gives(tmp_path: Path) -> None:
    nix = Nix.open(tmp_path / "store")
    file = tmp_path / "input_1.0.deb"
    file.write_bytes(b"bytes")
    assert nix.add(file) == flat_path(file.name, hashlib.sha256(b"bytes").hexdigest())
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "run").write_bytes(b"#!")
    (tree / "bin" / "run").chmod(0o755)
    (tree / "link").symlink_to("bin/run")
    assert nix.add(tree, tree=True) == tree_path("tree", nar_sha256(tree))


@needs_nix
def test_what_was_never_added_is_absent(tmp_path: Path) -> None:
    nix = Nix.open(tmp_path / "store")
    (tmp_path / "a").write_bytes(b"")
    there, not_there = nix.add(tmp_path / "a"), flat_path("b", EMPTY)
    assert nix.absent([there, not_there]) == {not_there}
    assert nix.absent([]) == frozenset()
    assert nix.physical(there).read_bytes() == b""
    nix.verify()


@needs_nix
def test_the_store_hashes_an_archive_as_nix_does(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    words = ["nix-hash", "--type", "sha256", str(tmp_path / "x")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == nar_sha256(
        tmp_path / "x"
    )
