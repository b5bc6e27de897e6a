"""Each source of non-determinism that the recipe removed, put back: the artefact that it spoils then differs.

The scripts of ``nix/scripts`` run under the locked Python and tools, twice, over small trees, under conditions
that two machines could differ in: order of folders, times, users, modes, hash seed, time zone, a later second.
With the cure both runs agree; each case takes cures out of the text and names the artefacts that must differ.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.build import Recipe, fetch
from builder.choose import choose
from builder.nix import Nix
from builder.prefetch import Cache
from tests.conftest import ROOT
from tests.fakes.processes import until

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed"),
]

SHARED = ("erofs", "verity", "cpio", "locked")
MODULE = "def used(name):\n    return name in {'alpha', 'beta', 'gamma', 'delta'}\n"

# What two machines differ in, for a script that asks: its folders' order and its user.
PRELUDE = """
import os, runpy, sys
backwards, user = sys.argv[1] == "two", 1000 if sys.argv[1] == "two" else 0
real_scandir, real_listdir = os.scandir, os.listdir
class Scan:
    def __init__(self, path="."):
        with real_scandir(path) as found:
            self.left = sorted(found, key=lambda entry: entry.name, reverse=not backwards)
    def __enter__(self): return self
    def __exit__(self, *_): return None
    def close(self): return None
    def __iter__(self): return self
    def __next__(self):
        if not self.left: raise StopIteration
        return self.left.pop()
os.scandir = Scan
os.listdir = lambda path=".": sorted(real_listdir(path), reverse=backwards)
os.getuid = lambda: user
script, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_path(script, run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Cure:
    """A piece of a script's text that removes a source of difference, and the text without it."""

    file: str
    text: str
    without: str


# Folders come sorted out of the walk, and once more when the image is written: both have to go.
WALK = (
    Cure("rootfs", "            folders.sort()\n".replace("    ", "", 1), ""),
    Cure("rootfs", "sorted(names + links)", "names + links"),
    Cure("rootfs", "sorted(nodes.items())", "list(nodes.items())"),
)
ORDER = Cure("erofs", "dict(sorted(found.items(), key=lambda item: item[0].encode()))", "found")
TIMES = Cure("erofs", '"-T0", ', "")
ROOTFS = frozenset({"rootfs/rootfs.img", "rootfs/verity.json"})
# mkfs.erofs sorts what a tar gives it: order reaches the list of files alone.
LISTING = frozenset({"rootfs/files.tsv"})
LISTED = ROOTFS | LISTING
MODEL = frozenset({"model/model.img", "model/verity.json"})
INITRD = frozenset({"initrd/initrd.img"})

CASES: dict[str, tuple[tuple[Cure, ...], frozenset[str]]] = {
    "the time at which the file system is made": ((TIMES,), ROOTFS | MODEL),
    "the times of files": (
        (
            TIMES,
            Cure("erofs", "info.size = node.source.stat().st_size\n", "info.size = node.source.stat().st_size; info.mtime = int(node.source.stat().st_mtime)\n"),
        ),
        ROOTFS | MODEL,
    ),
    "a random identity of the file system": ((Cure("erofs", '"-U", identity, ', ""),), ROOTFS | MODEL),
    "the user who builds": (
        (
            Cure("erofs", '"--all-root", ', ""),
            Cure("erofs", "info = tarfile.TarInfo(name)\n", "info = tarfile.TarInfo(name); import os; info.uid = os.getuid()\n"),
        ),
        ROOTFS | MODEL,
    ),
    "the modes that a umask leaves": (
        (
            Cure(
                "erofs",
                "info.size = node.source.stat().st_size\n",
                "info.size = node.source.stat().st_size; info.mode = node.source.stat().st_mode & 0o777\n",
            ),
        ),
        ROOTFS | MODEL,
    ),
    "the order in which folders are read": ((*WALK, ORDER), LISTING),
    "the seed of Python's hashes": (
        (
            Cure(
                "erofs",
                "dict(sorted(found.items(), key=lambda item: item[0].encode()))",
                "{path: found[path] for path in set(found)}",
            ),
        ),
        LISTING,
    ),
    "duplicates that the store links": (
        (
            Cure("erofs", '"--tar=f", str(image)', "str(image)"),
            Cure("model", 'tool("mkfs.erofs"), tar,', 'tool("mkfs.erofs"), tree,'),
        ),
        MODEL,
    ),
    "times in byte code": (
        (
            Cure(
                "rootfs",
                "_bootstrap_external._code_to_hash_pyc(code, importlib.util.source_hash(source), False)",
                "_bootstrap_external._code_to_timestamp_pyc(code, int(os.stat(nodes[path].source or __file__).st_mtime), 0)",
            ),
        ),
        LISTED,
    ),
    "the place where byte code is made": (
        (Cure("rootfs", 'compile(source, f"/{place}{path}"', 'compile(source, os.getcwd() + f"/{path}"'),),
        LISTED,
    ),
    "a random salt of the hash tree": (
        (Cure("verity", 'return hashlib.sha256(f"quotary-verity/v1\\n{label}".encode()).digest()', "return os.urandom(32)"),),
        ROOTFS | MODEL,
    ),
    "a random identity of the hash tree": (
        (Cure("verity", "uuid.uuid5(NAMESPACE, label).bytes", "uuid.uuid4().bytes"),),
        ROOTFS - {"rootfs/verity.json"} | MODEL - {"model/verity.json"},
    ),
    "the order of the ramdisk's libraries": (
        (
            Cure("initrd", "sorted(os.listdir(tree / LIBRARIES))", "os.listdir(tree / LIBRARIES)"),
            Cure("cpio", "sorted(found.values(), key=lambda entry: entry.path.encode())", "found.values()"),
        ),
        INITRD,
    ),
    "times in the ramdisk": (
        (Cure("cpio", "0, 0, links, 0, len(entry.data)", "0, 0, links, int(__import__('time').time()), len(entry.data)"),),
        INITRD,
    ),
    "the ramdisk's owner": (
        (Cure("cpio", "entry.mode, 0, 0, links", "entry.mode, __import__('os').getuid(), 0, links"),),
        INITRD,
    ),
    "the header of a gzip": (
        # The header holds whole seconds; here the low bits of nanoseconds, since two builds may share a second.
        (
            Cure(
                "initrd",
                "write_bytes(packed.stdout",
                "write_bytes(__import__('gzip').compress(plain, mtime=__import__('time').time_ns() % 2**32)",
            ),
        ),
        INITRD,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tools:
    """The locked tools, unpacked in a store of this test's own."""

    folder: Path

    def python(self, words: list[str], work: Path, variant: str, inside: Sequence[str] = ()) -> None:
        """Run the locked Python as one of two machines, ``inside`` what these words start."""
        libraries = self.folder / "usr/lib/x86_64-linux-gnu"
        environment = {
            "TOOLS": str(self.folder),
            "LIBRARIES": str(libraries),
            "PYTHONHOME": str(self.folder / "usr"),
            "PYTHONPATH": str(work.parent / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "1" if variant == "one" else "2",
            "TZ": "UTC" if variant == "one" else "Asia/Tokyo",
            "LC_ALL": "C" if variant == "one" else "C.UTF-8",
        }
        loader = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)]
        program = ["--argv0", "python3.13", str(self.folder / "usr/bin/python3.13")]
        subprocess.run(
            [*inside, *loader, *program, *words], cwd=work, env=environment, check=True, timeout=60
        )


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    folder = tmp_path_factory.mktemp("tools")
    nix, cache = Nix.open(folder / "store"), Cache.default()
    recipe = Recipe(ROOT, "ci", ROOT / "nix" / "lock")
    chosen = choose(recipe, nix, cache, cache.folder.parent / "work", print).recipe
    fetch(chosen, nix, cache, cache.folder.parent / "work", print)
    (path,) = nix.build(chosen.source / "nix", ["tools"], chosen.arguments(), visible=chosen.visible())
    yield Tools(nix.physical(path))
    nix.remove()


def inputs(folder: Path, variant: str) -> Path:
    """Write the same files as another machine would have them: made in another order, at other times."""
    tree = folder / variant / "tree"
    files = {
        **{f"usr/lib/python3/dist-packages/some/{name}.py": MODULE.encode() for name in "abcdef"},
        "usr/lib/python3/dist-packages/some/__init__.py": b"",
        "usr/lib/x86_64-linux-gnu/libb.so.1": b"library b",
        "usr/lib/x86_64-linux-gnu/liba.so.1": b"library a",
        "usr/bin/busybox": b"busybox",
        "usr/sbin/dmsetup": b"dmsetup",
        **{f"usr/share/ca-certificates/{name}.crt": name.encode() for name in "xyz"},
        "srv/config.json": b"{}",
        "srv/weights": bytes(5000),
        "srv/weights-again": bytes(5000),
    }
    ordered = sorted(files, reverse=variant == "two")
    for number, name in enumerate(ordered):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        path.chmod(0o644 if variant == "one" else 0o600)
        os.utime(path, (number * (1 if variant == "one" else 7) + 1,) * 2)
    if variant == "two":
        (tree / "srv/weights-again").unlink()
        os.link(tree / "srv/weights", tree / "srv/weights-again")
    with zipfile.ZipFile(folder / variant / "wheel.whl", "w") as wheel:
        for name in ("small/b.py", "small/a.py")[:: 1 if variant == "one" else -1]:
            wheel.writestr(name, MODULE)
    return tree


def specs(folder: Path, variant: str) -> dict[str, dict[str, object]]:
    tree = folder / variant / "tree"
    init = ROOT / "nix" / "guest" / "init.sh"
    image = json.loads((ROOT / "nix" / "image.json").read_bytes())
    model = tree / "srv"
    named = [model / name for name in ("config.json", "weights", "weights-again")]
    lines = "".join(f"{digest(path)}  {path.stat().st_size}  {path.name}\n" for path in named)
    (model / "MANIFEST").write_text(lines)
    return {
        "rootfs": {
            "label": "rootfs-test",
            "disk": "rootfs",
            "listing": "files.tsv",
            "place": "",
            "trees": [str(tree)],
            "wheels": [{"filename": "small.whl", "path": str(folder / variant / "wheel.whl")}],
            "packages": {},
            "programs": {"quotary-init": str(init)},
            "links": {"lib": "usr/lib"},
            "keep": ["usr/lib/*"],
            "drop": ["*.h"],
            "files": {"etc/hostname": "quotary\n"},
            "folders": image["folders"],
        },
        "initrd": {"tree": str(tree), "kernel": str(tree), "modules": [], "init": str(init)},
        "model": {"label": "model", "tree": str(model)},
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(
    tools: Tools, folder: Path, cures: tuple[Cure, ...], variant: str, names: set[str]
) -> dict[str, bytes]:
    """Run the named scripts, without some cures, as one of two machines; give every file that they wrote."""
    machine = folder / variant
    library = machine / "lib" / "builder"
    library.mkdir(parents=True)
    texts = {name: (ROOT / "builder" / f"{name}.py").read_text() for name in SHARED}
    texts |= {
        name: (ROOT / "nix" / "scripts" / f"{name}.py").read_text() for name in ("rootfs", "initrd", "model")
    }
    for cure in cures:
        assert texts[cure.file].count(cure.text) >= 1, f"{cure.file} has no {cure.text!r}"
        texts[cure.file] = texts[cure.file].replace(cure.text, cure.without)
    (library / "__init__.py").touch()
    for name, text in texts.items():
        (library / f"{name}.py").write_text(text)
    (machine / "prelude.py").write_text(PRELUDE)
    inputs(folder, variant)
    found = {}
    for name, spec in specs(folder, variant).items():
        if name not in names:
            continue
        work = machine / f"work-{name}"
        work.mkdir()
        (work / "what.json").write_text(json.dumps(spec))
        script = str(library / f"{name}.py")
        tools.python([str(machine / "prelude.py"), variant, script, "what.json", "out"], work, variant)
        found |= {f"{name}/{path.name}": path.read_bytes() for path in (work / "out").iterdir()}
    return found


def differing(tools: Tools, folder: Path, cures: tuple[Cure, ...], names: set[str]) -> set[str]:
    one = build(tools, folder, cures, "one", names)
    second = int(time.time())
    if not cures or any("time" in cure.text + cure.without or cure == TIMES for cure in cures):
        until(lambda: int(time.time()) > second, "a later second")
    two = build(tools, folder, cures, "two", names)
    assert one.keys() == two.keys()
    return {name for name in one if one[name] != two[name]}


def test_two_machines_that_differ_in_everything_build_the_same_bytes(tools: Tools, tmp_path: Path) -> None:
    assert differing(tools, tmp_path, (), {"rootfs", "initrd", "model"}) == set()


@pytest.mark.parametrize("name", CASES)
def test_what_was_removed_spoils_its_artefact_when_it_is_put_back(
    tools: Tools, tmp_path: Path, name: str
) -> None:
    cures, spoiled = CASES[name]
    assert differing(tools, tmp_path, cures, {artefact.split("/")[0] for artefact in spoiled}) == spoiled
