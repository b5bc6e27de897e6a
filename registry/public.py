"""What the public may see: everything here is bounded by the published checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass

from quotary.statements.envelope import Envelope
from quotary.statements.release import Release
from quotary.statements.schema import parse_statement
from quotary.statements.state_entry import StateEntry
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note
from quotary.tlog.proof import TlogProof
from quotary.tlog.tiles import TILE_WIDTH, HashTree, TilePath, width_at
from registry.errors import NotFound, NotPublished
from registry.store import Reader
from registry.tree import StoredNodes, StoredTiles

Place = tuple[bytes, str]
"""Where a walk over the measurements stands: a measurement id (32 bytes) and its service."""

FIRST: Place = (b"", "")
PAGE = 256


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The published log at one moment.

    note:        the cosigned checkpoint, byte for byte
    state:       the state entry at its end; state_bytes: that entry
    """

    checkpoint: Checkpoint
    note: bytes
    at: int
    state: StateEntry
    state_bytes: bytes

    @property
    def size(self) -> int:
        return self.checkpoint.size

    @property
    def trie_root(self) -> bytes:
        return self.state.maps["F1"]


class PublicLog:
    """Reads of the published log for the API, the pages and the export."""

    def __init__(self, read: Reader) -> None:
        self.read = read
        self.tiles = StoredTiles(read)
        self.nodes = StoredNodes(read)
        self._tree = HashTree(0, self.tiles)
        self._newest: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """Give the newest published state."""
        published = self.read.published()
        if published is None:
            raise NotPublished("the log has not published a checkpoint yet", 0)
        newest = self._newest
        if newest is not None and (newest.note, newest.at) == (published.note, published.at):
            return newest
        checkpoint = Checkpoint.parse(Note.parse(published.note).text)
        state_bytes = self.entry(checkpoint.size - 1, checkpoint.size)
        state = StateEntry.parse(state_bytes)
        self._newest = newest = Snapshot(checkpoint, published.note, published.at, state, state_bytes)
        return newest

    def tree(self, snapshot: Snapshot) -> HashTree:
        """Give the tree of a checkpoint; what was read for the one before serves again."""
        tree = self._tree
        if tree.size != snapshot.size:
            self._tree = tree = tree.resized(snapshot.size)
        return tree

    def entry(self, index: int, size: int) -> bytes:
        """Give the entry at ``index``."""
        self.within(index, size)
        n, place = divmod(index, TILE_WIDTH)
        return self.tiles.entries_of(n, place, place + 1)[0]

    def index_of(self, leaf_hash: bytes, size: int) -> int:
        """Give the index of a published entry."""
        index = self.read.find(leaf_hash)
        if index is None:
            raise NotFound(f"no entry has the leaf hash {leaf_hash.hex()}")
        self.within(index, size)
        return index

    def within(self, index: int, size: int) -> None:
        """Raise ``NotPublished`` for an index beyond the published size."""
        if index >= size:
            raise NotPublished(f"the checkpoint covers {size} entries, you asked for index {index}", size)

    def proof(self, index: int, snapshot: Snapshot) -> TlogProof:
        """Give the inclusion proof of an entry under the published checkpoint."""
        self.within(index, snapshot.size)
        return TlogProof(index, self.tree(snapshot).inclusion_path(index), snapshot.note)

    def consistency(self, old: int, new: int, size: int) -> tuple[bytes, ...]:
        """Give the consistency path between two published sizes, 1 <= old <= new."""
        if new > size:
            raise NotPublished(f"the checkpoint covers {size} entries, you asked for {new}", size)
        return self._tree.resized(new).consistency_path(old)

    def measurements(self, size: int, after: Place = FIRST) -> Iterator[Place]:
        """Give measurement id and service of every measurement in the map behind ``after``."""
        while page := self.read.held_after(after, size, PAGE):
            yield from page
            after = page[-1]

    def measurements_of(self, index: int) -> list[str]:
        """Give the measurement ids (hex) that the release at ``index`` lists."""
        release = parse_statement(Envelope.parse(self.read.entries(index, index + 1)[0]).payload).predicate
        return [row.measurement.hex() for row in release.rows] if isinstance(release, Release) else []

    def tile_bytes(self, path: TilePath, size: int) -> bytes:
        """Give a tile or an entry bundle; a wider one than the published size has is not public."""
        width = width_at(path.level or 0, path.n, size)
        if path.width > width:
            raise NotPublished(f"the published tile is {width} wide, you asked for {path.width}", size)
        if path.level is None:
            return self.tiles.entries(path.n, path.width)
        return self.tiles.tile(path.level, path.n, path.width)
