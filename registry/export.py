"""Write the published log as files, for nginx or any static host: full tiles once, the checkpoint last.

Partial tiles of the published size are written too, and go when their tile is full. Each file is replaced
atomically; a reader sees the old or the new one. The folder can be deleted at any time: it is written again.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from quotary.tlog.tiles import TILE_WIDTH, TilePath, width_at
from registry.bundles import Bundles
from registry.public import PublicLog, Snapshot

MAX_BUNDLES = 2000
MAX_BUNDLE_AGE_SECONDS = 30.0
BUNDLES = "api/v1/bundles"


class Exporter:
    """Keeps one folder in step with the published log."""

    def __init__(self, public: PublicLog, folder: Path) -> None:
        self._public = public
        self._folder = folder
        self._written = 0
        self._next_bundles = 0.0

    def export(self) -> bool:
        """Write what is missing for the published size; say whether the bundles are as new as the checkpoint.

        Each checkpoint changes every bundle, so they are written at most a tenth of the time, and at least
        every 30 seconds; everything else is written at once.
        """
        snapshot = self._public.snapshot()
        for path in paths_at(snapshot.size, self._written):
            self._write_tile(path, snapshot.size)
        self._written = snapshot.size
        due = time.monotonic() >= self._next_bundles
        if due:
            started = time.monotonic()
            self._write_bundles(snapshot)
            took = time.monotonic() - started
            self._next_bundles = started + min(MAX_BUNDLE_AGE_SECONDS, 10 * took)
        self._write("checkpoint", snapshot.note)
        return due

    def export_all(self) -> int:
        """Write everything anew, and the bundle of every measurement however many; give the size."""
        snapshot = self._public.snapshot()
        for path in paths_at(snapshot.size):
            self._write_tile(path, snapshot.size, anew=True)
        self._write_bundles(snapshot, limit=None)
        self._write("checkpoint", snapshot.note)
        return snapshot.size

    def _write_tile(self, path: TilePath, size: int, *, anew: bool = False) -> None:
        target = self._folder / str(path)
        if anew or not target.exists():
            self._write(str(path), self._public.tile_bytes(path, size))
        partials = Path(f"{target}.p")
        if path.width == TILE_WIDTH and partials.exists():
            shutil.rmtree(partials)

    def _write_bundles(self, snapshot: Snapshot, limit: int | None = MAX_BUNDLES) -> None:
        bundles = Bundles(self._public, snapshot)
        for service, measurement in self._public.measurements(snapshot.size, limit):
            # A service may be called "../x"; the API answers for it, the folder does not.
            if {"", ".", ".."} & set(service.split("/")):
                continue
            self._write(f"{BUNDLES}/{service}/{measurement.hex()}", bundles.of(service, measurement))

    def _write(self, name: str, data: bytes) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        with open(beside, "wb") as file:
            file.write(data)
        beside.replace(target)


def paths_at(size: int, old_size: int = 0) -> Iterator[TilePath]:
    """Give the tiles and entry bundles that a size has and ``old_size`` had not; partial ones included."""
    level = 0
    while size >> 8 * level:
        for n in range((old_size >> 8 * level) // TILE_WIDTH, (size >> 8 * level) // TILE_WIDTH + 1):
            width = width_at(level, n, size)
            if width:
                yield TilePath(level, n, width)
                if level == 0:
                    yield TilePath(None, n, width)
        level += 1
