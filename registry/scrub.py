"""Read the whole published log again, piece by piece, and hash it: damage is found while mirrors are whole.

One piece is an entry bundle: its entries must have the leaf hashes of the index and of the stored tile, the
tile the node above it, and the exported files the same bytes; a pass ends at the root of the published
checkpoint. How far a pass is stands in a file, so that a restart goes on. The first damage stays there until
a pass finds none.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from quotary.canonical import Fields, canonical, parse_canonical
from quotary.errors import Malformed
from quotary.tlog.merkle import HASH_LENGTH, leaf_hash, root_of
from quotary.tlog.tiles import TILE_WIDTH, TilePath, encode_entry_bundle, root_at, width_at
from registry.errors import Damaged, NotPublished, StoreUnavailable
from registry.keys import write_durably
from registry.public import PublicLog, Snapshot
from registry.store import Reader
from registry.tree import StoredTiles
from registry.witnesses import NEXT

log = logging.getLogger("registry")

EVERY_SECONDS = 12 * 3600
KEEP_SECONDS = 60.0
TELL_SECONDS = 2.0
MAX_LENGTH = 65_536


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is.

    bundles:   entry bundles read in this pass
    started:   when it began, Unix seconds; completed: when the newest whole pass ended, 0 before the first
    damage:    what was found in this pass, or in the one before while this one found nothing; mostly empty
    found:     whether it was in this pass
    """

    bundles: int = 0
    started: int = 0
    completed: int = 0
    damage: str = ""
    found: bool = False


class Scrubber:
    """Works a little when it is asked to."""

    def __init__(self, read: Reader, public: Path, file: Path, now: Callable[[], datetime]) -> None:
        self._read = read
        self._public = public
        self._file = file
        self._now = now
        self._keep_at = 0.0
        self.progress = recall(file)

    def work(self, seconds: float) -> None:
        """Go on for so long, where a pass is under way or due; a database that is silent is left alone."""
        deadline = time.monotonic() + seconds
        try:
            snapshot = PublicLog(self._read).snapshot() if self._is_due() else None
            while snapshot and self._is_due() and time.monotonic() < deadline:
                self.step(snapshot)
        except (StoreUnavailable, NotPublished, OSError) as error:
            log.warning("scrub.waits", extra={"why": str(error)})

    def run(self, tell: Callable[[int, int], None]) -> tuple[int, float]:
        """Make one whole pass now, and give its entries and its seconds; raises ``Damaged`` at its end.

        tell: hears every two seconds how many entries of how many are read
        """
        started = told = time.monotonic()
        snapshot = PublicLog(self._read).snapshot()
        self.progress = replace(self.progress, bundles=0)
        self.step(snapshot)
        while self.progress.bundles:
            self.step(snapshot)
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                tell(min(snapshot.size, self.progress.bundles * TILE_WIDTH), snapshot.size)
        if self.progress.damage:
            raise Damaged("scrub", self.progress.damage, "the log as it was signed", next_command=NEXT)
        return snapshot.size, time.monotonic() - started

    def step(self, snapshot: Snapshot) -> None:
        """Check one bundle of the published log, or its root where none is left."""
        tiles = StoredTiles(self._read)
        if not self.progress.bundles:
            self.progress = replace(self.progress, started=int(self._now().timestamp()), found=False)
        done = self.progress.bundles * TILE_WIDTH >= snapshot.size
        try:
            if done:
                _check_root(snapshot, tiles)
            else:
                _check_bundle(_Place(self._read, tiles, self._public, snapshot.size), self.progress.bundles)
        except (Damaged, Malformed) as error:
            self._damaged(error)
        self._advance(done)

    def _is_due(self) -> bool:
        return bool(self.progress.bundles) or self._now().timestamp() - self.progress.started >= EVERY_SECONDS

    def _damaged(self, error: Damaged | Malformed) -> None:
        log.error("scrub.damaged", extra={"why": str(error), "bundle": self.progress.bundles})
        damage = self.progress.damage if self.progress.found else str(error)
        self.progress = replace(self.progress, damage=damage, found=True)
        self._keep_at = 0.0

    def _advance(self, done: bool) -> None:
        before = self.progress
        if done:
            damage = before.damage if before.found else ""
            at = int(self._now().timestamp())
            self.progress = replace(before, bundles=0, completed=at, damage=damage, found=False)
            log.info("scrub.completed", extra={"bundles": before.bundles, "damaged": before.found})
        else:
            self.progress = replace(before, bundles=before.bundles + 1)
        if done or time.monotonic() >= self._keep_at:
            keep(self._file, self.progress)
            self._keep_at = time.monotonic() + KEEP_SECONDS


def recall(file: Path) -> Progress:
    """Read how far a pass is; a file that is missing or no longer whole begins a new one."""
    try:
        fields = Fields(parse_canonical(file.read_bytes(), MAX_LENGTH), "scrub")
        fields.integer("v", 1, 1)
        bundles, started, completed = map(fields.integer, ("bundles", "started", "completed"))
        damage = fields.optional("damage", fields.text) or ""
        found = Progress(bundles, started, completed, damage, fields.boolean("found"))
        fields.done()
    except (OSError, Malformed):
        return Progress()
    return found


def keep(file: Path, progress: Progress) -> None:
    """Replace the file."""
    found = {name: getattr(progress, name) for name in Progress.__slots__}
    if not progress.damage:
        del found["damage"]
    write_durably(file, canonical({"v": 1, **found}), 0o644)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where everything that one bundle is compared with stands."""

    read: Reader
    tiles: StoredTiles
    public: Path
    size: int


def _check_bundle(place: _Place, n: int) -> None:
    first, width = n * TILE_WIDTH, width_at(0, n, place.size)
    entries = place.read.entries(first, first + width)
    hashes = b"".join(map(leaf_hash, entries))
    _same(f"leaf hashes of bundle {n}", b"".join(place.read.leaf_hashes(first, first + width)), hashes)
    _check_tile(place, 0, n, width, hashes)
    if width == TILE_WIDTH:
        _check_file(place, TilePath(None, n), encode_entry_bundle(entries))


def _check_tile(place: _Place, level: int, n: int, width: int, wanted: bytes | None = None) -> None:
    """Compare a tile with its hashes, a full one also with the node above; and the one that it completes."""
    data = place.tiles.tile(level, n, width)
    _same(f"tile {level}/{n}", data, data if wanted is None else wanted)
    if width < TILE_WIDTH:
        return
    _check_file(place, TilePath(level, n), data)
    above, column = divmod(n, TILE_WIDTH)
    node = root_of([data[i : i + HASH_LENGTH] for i in range(0, len(data), HASH_LENGTH)])
    stored = place.tiles.tile(level + 1, above, column + 1)[-HASH_LENGTH:]
    _same(f"node above tile {level}/{n}", stored, node)
    if column + 1 == TILE_WIDTH:
        _check_tile(place, level + 1, above, TILE_WIDTH)


def _check_file(place: _Place, path: TilePath, wanted: bytes) -> None:
    """Compare an exported file; one that is not there was not exported."""
    file = place.public / str(path)
    if file.exists():
        _same(f"file {path}", file.read_bytes(), wanted)


def _check_root(snapshot: Snapshot, tiles: StoredTiles) -> None:
    _same(f"root of size {snapshot.size}", root_at(snapshot.size, tiles), snapshot.checkpoint.root)


def _same(what: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise Damaged(what, _short(found), _short(wanted))


def _short(data: bytes) -> str:
    return f"{len(data)} bytes with SHA-256 {hashlib.sha256(data).hexdigest()}"
