"""A byte-exact copy of a log on disk: checkpoint, tiles and entry bundles under their C2SP paths.

Every byte is proven under the signed checkpoint before it is written; the checkpoint is replaced last, so a
copy that was cut off is the copy of before with some files more. Any web server, and ``quotary audit``, can
read the folder.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quotary.client.audit import check_continues
from quotary.client.finding import Exhibit, Finding
from quotary.client.policy import Policy
from quotary.client.replay import Batch, prove_batch
from quotary.client.source import CHECKPOINT, Files, FolderSource
from quotary.errors import CannotTell, InvalidSignature, Refused
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.tiles import TILE_WIDTH, HashTree, entries_path, partial_widths, tile_path, width_at

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What the copy holds now; ``fetched`` entries came over the network, the others were there and right."""

    origin: str
    size: int
    root: bytes
    fetched: int
    files: int


def mirror(files: Files, folder: Path, policy: Policy, report: Report) -> Mirrored:
    """Make or renew the copy in ``folder``; raises ``Finding`` or ``Refused`` before the checkpoint changes.

    1. The checkpoint is accepted by the policy, and continues the copy's own. 2. Full bundles that the copy
    has are proven again, from disk; the rest is fetched and proven. 3. All tiles are recomputed from entries.
    """
    note = files.checkpoint()
    try:
        checkpoint = policy.tlog.verify(note).checkpoint
    except InvalidSignature as error:
        wanted = f"signed by the keys of {policy.origin}"
        raise Finding("checkpoint", str(error), wanted, [Exhibit("checkpoint", note)]) from error
    if checkpoint.size < max(1, policy.minimum_size):
        raise Refused(
            "rollback", f"{checkpoint.size} entries", f"at least the policy's {policy.minimum_size}"
        )
    if (folder / CHECKPOINT).exists():
        before = Files(FolderSource(folder)).checkpoint()
        check_continues(files, checkpoint, note, before, rollback=True)
    copy = _Copy(files, folder, checkpoint, note)
    while copy.frontier.size < checkpoint.size:
        copy.step()
        report(copy.frontier.size, checkpoint.size)
    copy.finish()
    return Mirrored(checkpoint.origin, checkpoint.size, checkpoint.root, copy.fetched, copy.written)


class _Copy:
    """One run: the tree of what stands in the folder."""

    def __init__(self, files: Files, folder: Path, checkpoint: Checkpoint, note: bytes) -> None:
        self._files = files
        self._here = Files(FolderSource(folder))
        self._folder = folder
        self._tree = HashTree(checkpoint.size, files)
        self._checkpoint = checkpoint
        self._note = note
        self.frontier = Frontier()
        self.fetched = self.written = 0

    def step(self) -> None:
        """Bring one entry bundle, and the tiles that it completes, into the folder."""
        start = self.frontier.size
        batch = self._kept(start) or self._fetch(start)
        n, width = batch.n, len(batch.entries)
        self._write(entries_path(n, width), batch.bundle)
        self._write(tile_path(0, n, width), batch.tile)
        self.frontier, full = self.frontier.append(batch.hashes)
        for tile in full:
            self._write(tile_path(tile.level, tile.n), tile.data)

    def finish(self) -> None:
        """Write the open tiles of the higher levels, then the checkpoint."""
        if self.frontier.root() != self._checkpoint.root:
            found, wanted = self._checkpoint.root.hex(), f"{self.frontier.root().hex()}, from the entries"
            raise Finding("root", found, wanted, [Exhibit("checkpoint", self._note)])
        for level, width in enumerate(partial_widths(self._checkpoint.size)):
            if width:
                n = self._checkpoint.size >> 8 * (level + 1)
                self._write(tile_path(level, n, width), self.frontier.tile(level))
        self._write(CHECKPOINT, self._note)

    def _kept(self, start: int) -> Batch | None:
        """Give a full bundle that is in the folder and right; anything else is fetched again."""
        n = start // TILE_WIDTH
        is_full = width_at(0, n, self._checkpoint.size) == TILE_WIDTH
        if not is_full or not (self._folder / entries_path(n)).exists():
            return None
        try:
            return prove_batch(self._here, self._tree, self._checkpoint, start, self._note)
        except (Finding, CannotTell):
            return None

    def _fetch(self, start: int) -> Batch:
        batch = prove_batch(self._files, self._tree, self._checkpoint, start, self._note)
        self.fetched += len(batch.entries)
        return batch

    def _write(self, path: str, data: bytes) -> None:
        place = self._folder / path
        try:
            if place.exists() and place.read_bytes() == data:
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_name(f".{place.name}.new")
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
        except OSError as error:
            raise CannotTell(f"cannot write {place}: {error.strerror}") from error
        self.written += 1
