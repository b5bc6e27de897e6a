"""A ``FakeLog`` as the files that it would publish, and ways to publish something else."""

from quotary.client.source import CHECKPOINT, Files
from quotary.errors import CannotTell
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.tiles import encode_entry_bundle, entries_path, partial_widths, tile_path, width_at
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.log import FakeLog, signed_note


class MemorySource:
    """Files in a dictionary; ``reads`` lists what was asked for."""

    name = "memory"

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.reads: list[str] = []

    def read(self, path: str, length: int) -> bytes:
        self.reads.append(path)
        try:
            return self.files[path]
        except KeyError:
            raise CannotTell(f"no {path}") from None


def files_of(entries: list[bytes], ts: int = TS, origin: str = ORIGIN) -> dict[str, bytes]:
    """What a log of these entries publishes: the checkpoint of its size, tiles and entry bundles."""
    files: dict[str, bytes] = {}
    frontier, full = Frontier().append([leaf_hash(entry) for entry in entries])
    for tile in full:
        files[tile_path(tile.level, tile.n)] = tile.data
    for level, width in enumerate(partial_widths(len(entries))):
        if width:
            files[tile_path(level, len(entries) >> 8 * (level + 1), width)] = frontier.tile(level)
    for n in range(-(-len(entries) // 256)):
        width = width_at(0, n, len(entries))
        files[entries_path(n, width)] = encode_entry_bundle(entries[256 * n : 256 * n + width])
    files[CHECKPOINT] = signed_note(Checkpoint(origin, len(entries), frontier.root()), ts)
    return files


def source_of(log: FakeLog) -> MemorySource:
    return MemorySource(files_of(log.entries, origin=log.origin))


def read(source: MemorySource) -> Files:
    return Files(source)
