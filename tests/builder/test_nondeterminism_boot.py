"""What a machine could leave in a kernel or a unified image, put back: the file that it spoils then differs.

The unified image is made by the locked tools out of small parts. Of the kernel the two files with the build's
time, user, machine and number are made, by the source's own rules; nothing is compiled for that.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build import Recipe
from builder.choose import choose
from builder.nix import Nix
from builder.prefetch import Cache
from tests.builder.test_nondeterminism import Tools
from tests.conftest import ROOT
from tests.fakes import firmware

pytestmark = pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed")

UKI = (ROOT / "builder" / "uki.py").read_text()
DESCRIPTION = ', "--os-release", ""'
MAKE = (ROOT / "nix" / "scripts" / "kernel-make.sh").read_text()
# Where the kernel's rules for those two files stand, and what they are called with.
RULES = ("init/Makefile", "scripts/Kbuild.include", "scripts/mkcompile_h", "scripts/build-version")
MINIATURE = """
srctree := .
obj := init
include scripts/Kbuild.include
include init/Makefile
FORCE:
compile.h: FORCE
\tsh scripts/mkcompile_h x86_64 gcc ld > $@
"""
SPOILS = {
    "KBUILD_BUILD_TIMESTAMP": "include/generated/utsversion.h",
    "KBUILD_BUILD_VERSION": "include/generated/utsversion.h",
    "KBUILD_BUILD_USER": "compile.h",
    "KBUILD_BUILD_HOST": "compile.h",
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tools, Path]]:
    """The locked tools, and those for unified images, in a store of this test's own."""
    nix, cache = Nix.open(tmp_path_factory.mktemp("tools") / "store"), Cache.default()
    recipe = Recipe(ROOT, "ci", ROOT / "nix" / "lock")
    chosen = choose(recipe, nix, cache, cache.folder.parent / "work", print).recipe
    names = ["tools", "uki-files"]
    paths = nix.build(chosen.source / "nix", names, chosen.arguments(), visible=chosen.visible())
    plain, unified = (nix.physical(path) for path in paths)
    yield Tools(plain), unified
    nix.remove()


def unified(tools: tuple[Tools, Path], folder: Path, text: str, variant: str) -> bytes:
    """Make a unified image as one of two machines, which describe themselves differently."""
    library = folder / variant / "lib" / "builder"
    library.mkdir(parents=True)
    for name in ("__init__", "locked"):
        shutil.copyfile(ROOT / "builder" / f"{name}.py", library / f"{name}.py")
    (library / "uki.py").write_text(text)
    work = folder / variant / "work"
    work.mkdir()
    (work / "vmlinuz").write_bytes(firmware.kernel())
    (work / "initrd.img").write_bytes(b"ramdisk")
    (work / "cmdline").write_text("quiet quotary.listen=8080")
    (work / "make.py").write_text(
        "import sys; from pathlib import Path; from builder import uki\n"
        "uki.assemble(Path(sys.argv[1]), *map(Path, ('vmlinuz', 'cmdline', 'initrd.img', 'out')))\n"
    )
    (work / "description").write_text(f"ID=machine-{variant}\n")
    place = next(path for path in ("/etc/os-release", "/usr/lib/os-release") if Path(path).exists())
    there = [
        "unshare",
        "-rm",
        "sh",
        "-euc",
        'mount --bind description "$0"; exec "$@"',
        str(Path(place).resolve()),
    ]
    tools[0].python(["make.py", str(tools[1])], work, variant, there)
    return (work / "out").read_bytes()


@pytest.mark.image
def test_two_machines_make_the_same_unified_image(tools: tuple[Tools, Path], tmp_path: Path) -> None:
    assert unified(tools, tmp_path, UKI, "one") == unified(tools, tmp_path, UKI, "two")


@pytest.mark.image
def test_the_description_of_the_machine_spoils_a_unified_image(
    tools: tuple[Tools, Path], tmp_path: Path
) -> None:
    assert UKI.count(DESCRIPTION) == 1
    spoiled = UKI.replace(DESCRIPTION, "")
    assert unified(tools, tmp_path, spoiled, "one") != unified(tools, tmp_path, spoiled, "two")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel's own rules, out of the locked source package."""
    if shutil.which("make") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("make or dpkg-deb is not installed")
    folder, cache = tmp_path_factory.mktemp("rules"), Cache.default()
    lock = json.loads((ROOT / "nix" / "lock" / "debian.json").read_bytes())
    (key,) = lock["groups"]["kernel-source"]
    package = cache.folder / lock["debs"][key]["sha256"]
    if not package.exists():
        pytest.skip("the kernel's source is not at hand: quotary build prefetch --profile cpu")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True, timeout=300)
    (source,) = folder.glob("usr/src/linux-source-*.tar.xz")
    with tarfile.open(source, "r|xz") as archive:
        left = set(RULES)
        for member in archive:
            name = member.name.partition("/")[2]
            if name in left:
                found = archive.extractfile(member)
                assert found is not None, f"{name} is a file"
                (folder / "rules" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "rules" / name).write_bytes(found.read())
                (folder / "rules" / name).chmod(0o755)
                left.discard(name)
            if not left:
                break
    return folder / "rules"


def made(rules: Path, folder: Path, script: str, variant: str) -> dict[str, bytes]:
    """Make both files as one of two machines: another day, user and name, and a second build there."""
    tree = folder / variant
    shutil.copytree(rules, tree)
    (tree / "Makefile").write_text(MINIATURE)
    (tree / "include" / "generated").mkdir(parents=True)
    if variant == "two":
        (tree / ".version").write_text("7\n")
    (tree / "bin").mkdir()
    for name, word in (("date", "day"), ("whoami", "user"), ("uname", "machine")):
        (tree / "bin" / name).write_text(f"#!/bin/sh\necho {word}-{variant}\n")
        (tree / "bin" / name).chmod(0o755)
    exports = "\n".join(re.findall(r"^export KBUILD.*$", script, re.MULTILINE))
    words = ["sh", "-euc", f"{exports}\nmake -s compile.h include/generated/utsversion.h"]
    environment = {"PATH": f"{tree / 'bin'}:{os.defpath}"}
    subprocess.run(words, cwd=tree, env=environment, check=True, timeout=60)
    return {name: (tree / name).read_bytes() for name in set(SPOILS.values())}


@pytest.mark.soak
def test_two_machines_name_the_same_build_in_the_kernel(rules: Path, tmp_path: Path) -> None:
    assert made(rules, tmp_path, MAKE, "one") == made(rules, tmp_path, MAKE, "two")


@pytest.mark.soak
@pytest.mark.parametrize("name", SPOILS)
def test_what_the_kernel_says_of_its_build_differs_when_it_is_not_fixed(
    rules: Path, tmp_path: Path, name: str
) -> None:
    spoiled, count = re.subn(rf" {name}=\S+", "", MAKE)
    assert count == 1
    one, two = (made(rules, tmp_path, spoiled, variant) for variant in ("one", "two"))
    assert {file for file in one if one[file] != two[file]} == {SPOILS[name]}
