"""Bring every locked input into the store: from the store itself, the local cache, then apt and pip.

Each input is named by its SHA-256, so it does not matter who hands it over. What cannot be had is named and
nothing is built; an input is never swapped for a newer one. Files arrive in the cache and in the store whole
or not at all.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import wheels
from builder.apt import Apt
from builder.errors import DiskFull, InputDiffers, InputMissing
from builder.lock import SEED_NAME, Deb, Input, Lock, Wheel, store_path
from builder.nix import Nix, Progress
from builder.resolve import Spec, write_seed
from builder.store import nar_sha256, tree_path
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Limits, Request, Transport

ENOSPC = 28
MIRROR_LIMITS = Limits(total_seconds=1800, length=2 << 30)


@dataclass(frozen=True, slots=True)
class Cache:
    """Inputs by content: ``folder/<sha256>``. Whatever lies there is hashed again before it is used.

    mirror: address under which somebody serves such a folder; asked before apt and pip, believed as little
    """

    folder: Path
    mirror: str | None = None

    @classmethod
    def default(cls, mirror: str | None = None) -> "Cache":
        """Return the user's cache: ``$XDG_CACHE_HOME/quotary/inputs``, usually below ``~/.cache``."""
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(Path(base) / "quotary" / "inputs", mirror)

    def find(self, sha256: str) -> Path | None:
        """Return the file, or nothing where it is absent; bytes that have rotted are removed."""
        path = self.folder / sha256
        if not path.is_file():
            return None
        if file_sha256(path) != sha256:
            path.unlink()
            return None
        return path

    def fetch(self, item: Input, transport: Transport) -> bool:
        """Ask the mirror for an input; say whether it gave the locked bytes. Others are dropped."""
        request = Request(f"{self.mirror}/{item.sha256}", limits=MIRROR_LIMITS)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".mirror-") as file:
            try:
                with transport.open(request) as stream:
                    file.writelines(stream.chunks)
                file.flush()
                if stream.status == 200:
                    self.take(Path(file.name), item.key, item.sha256)
            except (CannotTell, InputDiffers):
                return False
        return stream.status == 200

    def take(self, file: Path, name: str, sha256: str) -> Path:
        """Move a downloaded file in after comparing its hash."""
        found = file_sha256(file)
        if found != sha256:
            raise InputDiffers(f"input {name}", found, sha256)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / sha256
        fresh = self.folder / f".{sha256}.new"
        shutil.copyfile(file, fresh)
        fresh.replace(path)
        return path


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where each input came from, in counts; ``total`` is all that the groups need."""

    total: int
    in_store: int
    from_cache: int
    downloaded: int


def prefetch(
    lock: Lock,
    groups: tuple[tuple[str, ...], tuple[str, ...]],
    nix: Nix,
    cache: Cache,
    spec: Spec,
    work: Path,
    progress: Progress,
) -> Fetched:
    """Bring the inputs of the named package and wheel groups, and the seed, into the store.

    1. What the store already holds is left alone.
    2. What the cache holds is checked and added.
    3. The cache's mirror is asked, then apt and pip for the rest, all packages in one call each.
    4. Whatever is then missing is named in ``InputMissing``.
    """
    wanted = lock.of_groups(*groups)
    seed = tree_path(SEED_NAME, lock.seed_nar_sha256)
    absent = nix.absent([store_path(item) for item in wanted] + [seed])
    needed = [item for item in wanted if store_path(item) in absent]
    try:
        cached = [item for item in needed if cache.find(item.sha256)]
        missing = [item for item in needed if item not in cached]
        if seed in absent and cache.find(lock.debs[lock.seed_package].sha256) is None:
            missing = [*missing, *(item for item in [lock.debs[lock.seed_package]] if item not in missing)]
        if missing and cache.mirror:
            progress(f"asking {cache.mirror} for {len(missing)} inputs")
            transport = HTTP()
            missing = [item for item in missing if not cache.fetch(item, transport)]
        if missing:
            _download(missing, cache, spec, work, progress)
        _add(needed, nix, cache, progress)
        if seed in absent:
            _add_seed(lock, nix, cache)
    except OSError as error:
        if error.errno == ENOSPC:
            raise DiskFull("no space left for the inputs", next_command="df -h") from error
        raise CannotTell(f"cannot keep an input: {error.strerror}") from error
    return Fetched(len(wanted), len(wanted) - len(needed), len(cached), len(needed) - len(cached))


def still_offered(
    lock: Lock, groups: tuple[tuple[str, ...], tuple[str, ...]], spec: Spec, work: Path
) -> list[str]:
    """Return the keys of locked packages that the archive no longer offers (wheels stay in their index)."""
    apt = Apt.open(work / "apt", spec.suites)
    apt.update()
    debs = [item for item in lock.of_groups(*groups) if isinstance(item, Deb)]
    offered = apt.offered(debs)
    return [deb.key for deb in debs if deb.key not in offered]


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(missing: Sequence[Input], cache: Cache, spec: Spec, work: Path, progress: Progress) -> None:
    debs = [item for item in missing if isinstance(item, Deb)]
    chosen = [item for item in missing if isinstance(item, Wheel)]
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        gone: list[str] = []
        if debs:
            progress(f"downloading {len(debs)} packages")
            gone += _download_debs(debs, spec, work, Path(folder))
        if chosen:
            progress(f"downloading {len(chosen)} wheels")
            gone += _download_wheels(chosen, spec, Path(folder))
        by_hash = {item.sha256: item for item in missing}
        for file in sorted(Path(folder).rglob("*.deb")) + sorted(Path(folder).rglob("*.whl")):
            if item := by_hash.pop(file_sha256(file), None):
                cache.take(file, item.key, item.sha256)
        gone += [item.key for item in by_hash.values() if item.key not in gone]
    if gone:
        raise InputMissing(gone, next_command="quotary build lock --out FOLDER   (another image, reviewed)")


def _download_debs(debs: Sequence[Deb], spec: Spec, work: Path, folder: Path) -> list[str]:
    apt = Apt.open(work / "apt", spec.suites)
    apt.update()
    offered = apt.offered(debs)
    apt.download([deb for deb in debs if deb.key in offered], folder)
    return [deb.key for deb in debs if deb.key not in offered]


def _download_wheels(chosen: Sequence[Wheel], spec: Spec, folder: Path) -> list[str]:
    """Ask for all at once; where pip refuses, ask one by one to name the wheels that cannot be had."""
    try:
        wheels.download(chosen, spec.python, folder)
    except CannotTell:
        return _download_each(chosen, spec, folder)
    return []


def _download_each(chosen: Iterable[Wheel], spec: Spec, folder: Path) -> list[str]:
    gone = []
    for wheel in chosen:
        try:
            wheels.download([wheel], spec.python, folder)
        except CannotTell:
            gone.append(wheel.key)
    return gone


def _add(items: Sequence[Input], nix: Nix, cache: Cache, progress: Progress) -> None:
    """Add cached files under their store names, in one call: a hard link or copy gives each its name."""
    if not items:
        return
    progress(f"adding {len(items)} inputs to the store")
    with tempfile.TemporaryDirectory(dir=cache.folder) as folder:
        named = []
        for item in items:
            place = Path(folder) / item.store_name
            os.link(cache.folder / item.sha256, place)
            named.append(place)
        added = nix.add_files(named)
    for item, path in zip(items, added, strict=True):
        if path != store_path(item):
            raise InputDiffers(f"input {item.key}", path, store_path(item))


def _add_seed(lock: Lock, nix: Nix, cache: Cache) -> None:
    package = lock.debs[lock.seed_package]
    file = cache.find(package.sha256)
    if file is None:
        raise InputMissing([package.key], next_command="quotary build prefetch")
    with tempfile.TemporaryDirectory(dir=cache.folder) as folder:
        tree = write_seed(file.read_bytes(), lock.seed_member, Path(folder))
        found = nar_sha256(tree)
        if found != lock.seed_nar_sha256:
            raise InputDiffers("seed", found, lock.seed_nar_sha256)
        nix.add(tree, tree=True)
