"""The second opinion on our Merkle arithmetic: pymerkle builds the same tree (design section 3).

pymerkle is GPL-3.0-or-later, so it is an extra that only an auditor installs, imported only here and only
when it is asked for. It counts leaves from one, and its path begins with the leaf itself.
"""

from collections.abc import Iterable, Iterator

from quotary.client.finding import Exhibit, Finding
from quotary.client.replay import proven_batches
from quotary.client.source import Files
from quotary.errors import Unsupported
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.note import Note
from quotary.tlog.tiles import TILE_WIDTH, HashTree

MAX_PATHS = 4096


def entries_of(files: Files, note: bytes) -> Iterator[bytes]:
    """Give every entry under a checkpoint, in log order."""
    checkpoint = Checkpoint.parse(Note.parse(note).text)
    for batch in proven_batches(files, checkpoint, 0, note):
        yield from batch.entries


def cross_check(files: Files, note: bytes, entries: Iterable[bytes]) -> int:
    """Let pymerkle rebuild the tree from ``entries``; raise ``Finding`` at the first difference.

    Compared are the signed root, the root of every 256th size, and up to 4096 inclusion paths, evenly spread.
    The tree stands in memory: about 500 bytes an entry. Returns the number of paths.
    """
    try:
        from pymerkle import InmemoryTree
    except ModuleNotFoundError as error:
        raise Unsupported(
            "--cross-check needs the Python package pymerkle, which is not installed",
            next_command="pip install 'quotary[audit]'",
        ) from error
    checkpoint = Checkpoint.parse(Note.parse(note).text)
    second = InmemoryTree(algorithm="sha256")
    for entry in entries:
        second.append_entry(entry)
    if second.get_size() != checkpoint.size:
        _differ("size", second.get_size(), checkpoint.size, note)
    tree, ours = HashTree(checkpoint.size, files), Frontier()
    while ours.size < checkpoint.size:
        width = min(TILE_WIDTH, checkpoint.size - ours.size)
        ours, _ = ours.append([tree.leaf(index) for index in range(ours.size, ours.size + width)])
        _same(f"root of {ours.size} entries", bytes(second.get_root(ours.size)), ours.root(), note)
    _same("signed root", bytes(second.get_root()), checkpoint.root, note)
    indices = range(0, checkpoint.size, -(-checkpoint.size // MAX_PATHS))
    for index in indices:
        theirs = b"".join(second.prove_inclusion(index + 1, checkpoint.size).path)
        path = b"".join((tree.leaf(index), *tree.inclusion_path(index)))
        _same(f"inclusion path of entry {index}", theirs, path, note)
    return len(indices)


def _same(what: str, theirs: bytes, ours: bytes, note: bytes) -> None:
    if theirs != ours:
        _differ(what, theirs.hex(), ours.hex(), note)


def _differ(what: str, theirs: object, ours: object, note: bytes) -> None:
    raise Finding(
        "cross-check", f"{what} by pymerkle: {theirs}", f"ours: {ours}", [Exhibit("checkpoint", note)]
    )
