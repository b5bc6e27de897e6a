"""Write the published log as files, for nginx or any static host: full tiles once, the checkpoint last.

Partial tiles of the published size are written too, and go when their tile is full. Each file is replaced
atomically; a reader sees the old or the new one. The folder can be deleted at any time: it is written again.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from quotary.tlog.tiles import TILE_WIDTH, TilePath, width_at
from registry.bundles import Bundles
from registry.public import FIRST, Place, PublicLog, Snapshot

MAX_BUNDLES = 2000
BUNDLES = "api/v1/bundles"
# Of its time the sequencer gives bundles three hundredths, and a fifth where a walk over all of them is late.
SHARE, LATE_SHARE, LATE_SECONDS = 0.03, 0.2, 10.0
# A shorter turn would mostly gather what bundles share: services, delegations, floors.
TURN_SECONDS, LEAST_BUNDLES = 0.03, 2
AT_ONCE = 16


@dataclass(slots=True)
class _Walk:
    """One walk over the bundles.

    last:    when it last went on, by the monotonic clock
    note:    the checkpoint under which it began; empty before it has
    started: when it began
    place:   the newest bundle that it wrote; count: how many
    """

    last: float
    note: bytes = b""
    started: float = 0.0
    place: Place = FIRST
    count: int = 0

    def seconds(self, now: float, note: bytes) -> float | None:
        """Say for how long it may go on now; None where it has to wait for its turn."""
        if not self.note:
            self.note, self.started = note, now
        share = LATE_SHARE if now - self.started > LATE_SECONDS else SHARE
        earned = share * (now - self.last)
        if earned < TURN_SECONDS:
            return None
        self.last = now
        return earned


class Exporter:
    """Keeps one folder in step with the published log."""

    def __init__(self, public: PublicLog, folder: Path) -> None:
        self._public = public
        self._folder = folder
        self._written = 0
        self._walk = _Walk(last=time.monotonic())

    def export(self) -> bool:
        """Write what is missing for the published size; say whether every bundle is as new as the checkpoint.

        Each checkpoint changes every bundle, and there may be thousands: each call writes a few and goes on
        where the last one ended, so that nobody waits for them.
        """
        snapshot = self._public.snapshot()
        for path in paths_at(snapshot.size, self._written):
            self._write_tile(path, snapshot.size)
        self._written = snapshot.size
        self._write("checkpoint", snapshot.note)
        return self._write_some_bundles(snapshot)

    def export_all(self) -> int:
        """Write everything, and the bundle of every measurement however many; give the size.

        What is there and right stays, so an export that was cut off goes on.
        """
        snapshot = self._public.snapshot()
        for path in paths_at(snapshot.size):
            self._write_tile(path, snapshot.size, compare=True)
        bundles = Bundles(self._public, snapshot)
        places = self._public.measurements(snapshot.size)
        while some := list(islice(places, AT_ONCE)):
            bundles.prepare(some)
            for place in some:
                self._write_bundle(bundles, *place)
        self._write("checkpoint", snapshot.note)
        return snapshot.size

    def _write_tile(self, path: TilePath, size: int, *, compare: bool = False) -> None:
        target = self._folder / str(path)
        if compare or not target.exists():
            data = self._public.tile_bytes(path, size)
            if not target.exists() or target.read_bytes() != data:
                self._write(str(path), data)
        partials = Path(f"{target}.p")
        if path.width == TILE_WIDTH and partials.exists():
            shutil.rmtree(partials)

    def _write_some_bundles(self, snapshot: Snapshot) -> bool:
        walk, now = self._walk, time.monotonic()
        seconds = walk.seconds(now, snapshot.note)
        if seconds is None:
            return False
        end = now + seconds
        bundles = Bundles(self._public, snapshot)
        left = islice(self._public.measurements(snapshot.size, walk.place), MAX_BUNDLES - walk.count)
        number = 0
        while places := list(islice(left, AT_ONCE)):
            bundles.prepare(places)
            for place in places:
                if number >= LEAST_BUNDLES and time.monotonic() >= end:
                    return False
                self._write_bundle(bundles, *place)
                number, walk.place, walk.count = number + 1, place, walk.count + 1
        self._walk = _Walk(last=now)
        return walk.note == snapshot.note

    def _write_bundle(self, bundles: Bundles, measurement: bytes, service: str) -> None:
        # A service may be called "../x"; the API answers for it, the folder does not.
        if not {"", ".", ".."} & set(service.split("/")):
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
