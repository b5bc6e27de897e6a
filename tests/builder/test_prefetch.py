"""From lock to store: the store first, then the cache, then the archives; and what happens when they fail."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from builder.apt import Apt, Suite
from builder.build import Recipe
from builder.choose import choose
from builder.errors import DiskFull, InputDiffers, InputMissing
from builder.lock import Deb, Lock, Wheel, store_path
from builder.nix import Nix
from builder.prefetch import Cache, prefetch
from builder.resolve import Spec, write_seed
from builder.store import nar_sha256
from quotary.errors import CannotTell, Unsupported, Usage
from tests.builder.test_archive import deb
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("nix-store") is None, reason="Nix is not installed")

SPEC = Spec(
    (Suite("trixie", "debian"),),
    "seed",
    "usr/bin/busybox",
    {"tools": ("seed",)},
    "3.13",
    {"ci": ()},
    frozenset(),
)
GROUPS = (("tools",), ("ci",))
# A fake archive: apt's two programs, answering from a folder of packages. What is asked for is what is there.
FAKE = """#!/bin/sh
case "$*" in
  *show*) cat "$FAKE_ARCHIVE/index" ;;
  *download*) cp "$FAKE_ARCHIVE"/*.deb . 2> /dev/null || : ;;
esac
"""


def silent(line: str) -> None:
    pass


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def package() -> bytes:
    return deb({"./usr/bin/busybox": b"program"})


@pytest.fixture
def lock(package: bytes, tmp_path: Path) -> Lock:
    seed = Deb(
        "seed",
        "1.0-1",
        "amd64",
        digest(package),
        len(package),
        "pool/main/s/seed/seed_1.0-1_amd64.deb",
        "trixie",
    )
    wheel = Wheel("small", "1", "small-1-py3-none-any.whl", digest(b"wheel"))
    tree = write_seed(package, "usr/bin/busybox", tmp_path / "tree")
    return Lock(
        seed_package=seed.key,
        seed_member="usr/bin/busybox",
        seed_nar_sha256=nar_sha256(tree),
        deb_groups={"tools": (seed.key,)},
        debs={seed.key: seed},
        wheel_groups={"ci": (wheel.key,)},
        wheels={wheel.key: wheel},
    )


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that offers nothing until a test puts something there."""
    programs, folder = tmp_path / "programs", tmp_path / "archive"
    programs.mkdir()
    folder.mkdir()
    (folder / "index").touch()
    for name in ("apt-get", "apt-cache"):
        (programs / name).write_text(FAKE)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ARCHIVE", str(folder))
    return folder


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    return Nix.open(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def put(cache: Cache, data: bytes) -> None:
    cache.folder.mkdir(exist_ok=True)
    (cache.folder / digest(data)).write_bytes(data)


def offer(archive: Path, package: bytes, version: str = "1.0-1") -> None:
    (archive / "seed.deb").write_bytes(package)
    (archive / "index").write_text(f"Package: seed\nVersion: {version}\nSHA256: {digest(package)}\n\n")


def test_what_the_cache_has_is_added_and_then_found_in_the_store(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, tmp_path: Path
) -> None:
    put(cache, package)
    put(cache, b"wheel")
    first = prefetch(lock, GROUPS, nix, cache, SPEC, tmp_path / "work", silent)
    assert (first.total, first.in_store, first.from_cache, first.downloaded) == (2, 0, 2, 0)
    again = prefetch(lock, GROUPS, nix, cache, SPEC, tmp_path / "work", silent)
    assert (again.in_store, again.from_cache) == (2, 0)
    assert nix.absent([store_path(item) for item in lock.inputs()]) == frozenset()


def test_an_archive_fills_the_cache(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, archive: Path, tmp_path: Path
) -> None:
    put(cache, b"wheel")
    offer(archive, package)
    found = prefetch(lock, GROUPS, nix, cache, SPEC, tmp_path / "work", silent)
    assert (found.from_cache, found.downloaded) == (1, 1)
    assert cache.find(digest(package)) is not None


def test_what_has_left_the_archive_is_named_and_nothing_replaces_it(
    lock: Lock, nix: Nix, cache: Cache, archive: Path, tmp_path: Path
) -> None:
    put(cache, b"wheel")
    offer(archive, deb({"./usr/bin/busybox": b"newer"}), "1.0-2")
    with pytest.raises(InputMissing) as caught:
        prefetch(lock, GROUPS, nix, cache, SPEC, tmp_path / "work", silent)
    assert caught.value.names == ("seed=1.0-1",)
    assert nix.absent([store_path(lock.debs["seed=1.0-1"])])


def test_other_bytes_under_the_right_name_do_not_count(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, archive: Path, tmp_path: Path
) -> None:
    put(cache, b"wheel")
    offer(archive, package)
    (archive / "seed.deb").write_bytes(package + b"x")
    with pytest.raises(InputMissing):
        prefetch(lock, GROUPS, nix, cache, SPEC, tmp_path / "work", silent)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of inputs by hash, served over HTTP as any web server would."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_mirror_of_inputs_is_asked_before_the_archives_and_believed_by_hash_alone(
    lock: Lock,
    nix: Nix,
    cache: Cache,
    package: bytes,
    archive: Path,
    mirror: tuple[Path, str],
    tmp_path: Path,
) -> None:
    folder, address = mirror
    asking = replace(cache, mirror=address)
    (folder / digest(package)).write_bytes(package)
    (folder / digest(b"wheel")).write_bytes(b"other bytes")
    with pytest.raises(InputMissing) as caught:
        prefetch(lock, GROUPS, nix, asking, SPEC, tmp_path / "work", silent)
    assert caught.value.names == ("small=1",)
    assert [path.name for path in asking.folder.iterdir()] == [digest(package)]
    (folder / digest(b"wheel")).write_bytes(b"wheel")
    assert prefetch(lock, GROUPS, nix, asking, SPEC, tmp_path / "work", silent).downloaded == 1


def test_rotten_bytes_in_the_cache_are_thrown_away(cache: Cache) -> None:
    put(cache, b"good")
    (cache.folder / digest(b"good")).write_bytes(b"rotten")
    assert cache.find(digest(b"good")) is None
    assert not (cache.folder / digest(b"good")).exists()


def test_the_cache_takes_nothing_under_another_hash(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bad")
    with pytest.raises(InputDiffers):
        cache.take(tmp_path / "file", "good", digest(b"good"))
    assert not cache.folder.exists()


def test_a_seed_that_is_not_the_locked_program_is_refused(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, tmp_path: Path
) -> None:
    put(cache, package)
    put(cache, b"wheel")
    with pytest.raises(InputDiffers, match="seed"):
        prefetch(
            replace(lock, seed_nar_sha256="00" * 32), GROUPS, nix, cache, SPEC, tmp_path / "work", silent
        )


def test_a_full_disk_is_called_one(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, package)
    put(cache, b"wheel")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(DiskFull):
        prefetch(lock, GROUPS, nix, cache, SPEC, tmp_path / "work", silent)


def test_without_apt_the_machine_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotTell, match="apt-get"):
        Apt.open(tmp_path / "apt", SPEC.suites)


EMPTY: dict[str, tuple[str, ...]] = dict.fromkeys(("kernel", "firmware", "initrd", "uki"), ())


def checkout(tmp_path: Path, lock: Lock) -> Recipe:
    """A source folder with a lock of one package, as ``choose`` sees it."""
    folder = tmp_path / "source" / "nix" / "lock"
    lock.save(folder)
    (folder / "spec.json").write_text(
        '{"version": 1, "suites": [{"name": "trixie", "archive": "debian"}], "seed": {"package": "seed",'
        ' "member": "usr/bin/busybox"}, "debs": {"tools": ["seed"], "kernel": [], "firmware": [], "initrd": [], "uki": []},'
        ' "python": "3.13", "wheels": {"ci": []}, "without": []}'
    )
    image = {
        "kernels": {"debian": {"groups": ["kernel"], "words": []}},
        "profiles": {"ci": {"kernel": "debian", "ramdisk": True, "debs": [], "wheels": ["ci"]}},
    }
    (folder.parent / "image.json").write_text(json.dumps(image))
    return Recipe(tmp_path / "source", "ci", folder)


def test_a_lock_whose_inputs_can_be_had_is_kept(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, tmp_path: Path
) -> None:
    put(cache, package)
    put(cache, b"wheel")
    full = replace(lock, deb_groups={**lock.deb_groups, **EMPTY})
    recipe = checkout(tmp_path, full)
    assert choose(recipe, nix, cache, tmp_path / "work", silent).different == ()


def test_a_fresh_lock_is_called_a_different_image(
    lock: Lock, nix: Nix, cache: Cache, package: bytes, archive: Path, tmp_path: Path
) -> None:
    put(cache, b"wheel")
    newer = deb({"./usr/bin/busybox": b"program", "./x": b""})
    put(cache, newer)
    full = replace(lock, deb_groups={**lock.deb_groups, **EMPTY})
    recipe = checkout(tmp_path, full)
    seed = replace(lock.debs["seed=1.0-1"], version="1.0-2", sha256=digest(newer))
    fresh = replace(
        full,
        seed_package=seed.key,
        deb_groups={**full.deb_groups, "tools": (seed.key,)},
        debs={seed.key: seed},
    )
    said: list[str] = []
    found = choose(recipe, nix, cache, tmp_path / "work", said.append, resolve=lambda *_: fresh)
    assert found.missing == ("seed=1.0-1",)
    assert found.different == ("~ seed 1.0-1 -> 1.0-2",)
    assert found.recipe.lock == tmp_path / "work" / "lock"
    assert any("a different image" in line for line in said)
    assert Lock.load(recipe.lock) == full


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"profiles": {"ci": {}}, "kernels": {}}', '{"profiles": 1, "kernels": 2}']
)
def test_a_source_of_another_form_is_not_built(tmp_path: Path, text: str) -> None:
    (tmp_path / "nix").mkdir()
    with pytest.raises(Unsupported, match="not of the form"):
        Recipe(tmp_path, "ci", tmp_path).groups()
    (tmp_path / "nix" / "image.json").write_text(text)
    with pytest.raises(Unsupported, match="not of the form"):
        Recipe(tmp_path, "ci", tmp_path).groups()


def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(Usage, match="no profile tpu; there are ci, cpu, cpu-debian, gpu, nitro"):
        Recipe(ROOT, "tpu", ROOT / "nix" / "lock").groups()
