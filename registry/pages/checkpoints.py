"""How the log grew: its checkpoints, its size over time, and the shape of its tree."""

from flask import request
from markupsafe import Markup

from quotary.errors import Malformed
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note
from quotary.tlog.tiles import TILE_WIDTH
from registry.errors import NotFound, NotPublished
from registry.pages.history import signatures
from registry.pages.lookup import log_time
from registry.picture import growth_picture, tree_picture
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import Signed

PAGE = 20
POINTS = 40


def checkpoints(site: Site) -> dict[str, object]:
    """Say the newest published checkpoint and those that the log signed before, below ``before``."""
    snapshot = site.public.snapshot()
    before = request.args.get("before", snapshot.size + 1, type=int)
    if before < 1:
        raise Malformed("before is a size above 0")
    rows = site.store.read.signed_before(min(before, snapshot.size + 1), PAGE)
    return {
        "origin": site.config.origin,
        "size": snapshot.size,
        "checkpoints": [_line(site, row, snapshot) for row in rows],
        "newest": before > snapshot.size,
        "older": rows[-1].size if len(rows) == PAGE else None,
    }


def checkpoint(site: Site, size: int) -> dict[str, object]:
    """Say who signed the checkpoint of a size; witnesses' signatures stand under the newest one only."""
    snapshot = site.public.snapshot()
    if size > snapshot.size:
        raise NotPublished(
            f"the checkpoint covers {snapshot.size} entries, you asked for {size}", snapshot.size
        )
    row = site.store.read.signed_at(size)
    if row is None:
        raise NotFound(f"the log signed no checkpoint of {size} entries")
    note = snapshot.note if size == snapshot.size else row.note
    return {
        **_line(site, row, snapshot),
        "published": snapshot.size,
        "note": note.decode("utf-8"),
        "signatures": signatures(site, note),
    }


def growth(site: Site) -> dict[str, object]:
    """Say the size over time at some forty places, and of which full subtrees and tiles the tree is made."""
    snapshot = site.public.snapshot()
    size = snapshot.size
    closings = {site.store.read.closing(size * number // POINTS) for number in range(POINTS)}
    states = sorted({at for at in closings if at is not None and at < size} | {size - 1})
    points = [(log_time(site, at, snapshot), at + 1) for at in states]
    trees, tiles = subtrees(size), tile_levels(size)
    return {
        "size": size,
        "points": [{"at": at, "size": reached} for at, reached in points],
        "subtrees": trees,
        "tiles": tiles,
        "growth_picture": Markup(growth_picture(points)),  # noqa: S704  numbers and times only
        "tree_picture": Markup(tree_picture(size, [tree["entries"] for tree in trees])),  # noqa: S704  numbers
    }


def subtrees(size: int) -> list[dict[str, int]]:
    """Give the full subtrees of a tree from left to right: the binary digits of its size."""
    found, first = [], 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            found.append({"first": first, "last": first + (1 << bit) - 1, "entries": 1 << bit})
            first += 1 << bit
    return found


def tile_levels(size: int) -> list[dict[str, int]]:
    """Give the full tiles of each level and the width of the open one (c2sp.org/tlog-tiles)."""
    found, level, hashes = [], 0, size
    while hashes:
        found.append({"level": level, "full": hashes // TILE_WIDTH, "open": hashes % TILE_WIDTH})
        level, hashes = level + 1, hashes // TILE_WIDTH
    return found


def _line(site: Site, row: Signed, snapshot: Snapshot) -> dict[str, object]:
    found = Checkpoint.parse(Note.parse(row.note).text)
    at = log_time(site, found.size - 1, snapshot)
    return {"size": found.size, "root": found.root.hex(), "log_time": at}
