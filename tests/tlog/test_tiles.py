"""Tiles and the frontier: peers' logs, and the same tree computed three ways."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidProof, Malformed
from quotary.tlog import merkle, tiles
from quotary.tlog.frontier import Frontier, FullTile
from quotary.tlog.tiles import HashTree, TilePath

MIRROR = "000de184301123b9278c086a7d9f68c9577e83872224c197058fd90784ea9706"


def leaves(size):
    return [merkle.leaf_hash(b"entry %d" % index) for index in range(size)]


class Shelf:
    """A log's tiles: full ones as they were completed, open ones from the frontier."""

    def __init__(self):
        self.frontier = Frontier()
        self.full = {}
        self.reads = 0

    def append(self, leaf_hashes):
        self.frontier, full = self.frontier.append(leaf_hashes)
        for tile in full:
            assert (tile.level, tile.n) not in self.full
            self.full[tile.level, tile.n] = tile.data

    def tile(self, level, n, width):
        self.reads += 1
        data = self.full.get((level, n))
        return (self.frontier.tile(level) if data is None else data)[: 32 * width]


class Folder:
    """Tiles in files, as a peer wrote them."""

    def __init__(self, root):
        self.root = root

    def tile(self, level, n, width):
        return (self.root / tiles.tile_path(level, n, width)).read_bytes()


def checkpoint_lines(path):
    lines = path.read_text().split("\n")
    return int(lines[1]), base64.b64decode(lines[2])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("tile/0/000", TilePath(0, 0)),
        ("tile/0/000.p/1", TilePath(0, 0, 1)),
        ("tile/1/x001/x234/067", TilePath(1, 1234067)),
        ("tile/63/x001/000.p/255", TilePath(63, 1000, 255)),
        ("tile/entries/999", TilePath(None, 999)),
        ("tile/entries/x001/000.p/12", TilePath(None, 1000, 12)),
    ],
)
def test_a_tile_has_one_path(path, found):
    assert tiles.parse_tile_path(path) == found
    assert str(found) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/1000",
        "tile/0/000/",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/entries/00٠",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/000.p/300",
    ],
)
def test_a_second_spelling_of_a_path_is_malformed(path):
    with pytest.raises(Malformed):
        tiles.parse_tile_path(path)


@given(st.one_of(st.none(), st.integers(0, 63)), st.integers(0, 2**55), st.integers(1, 256))
def test_every_path_reads_back(level, n, width):
    path = TilePath(level, n, width)
    assert tiles.parse_tile_path(str(path)) == path


def test_paths_are_written_for_hashes_and_entries():
    assert tiles.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tiles.entries_path(5, 7) == "tile/entries/005.p/7"


def test_widths_are_those_of_the_specification():
    assert tiles.partial_widths(70_000) == (112, 17, 1)
    assert tiles.partial_widths(256) == (0, 1)
    assert tiles.partial_widths(0) == ()
    assert tiles.width_at(0, 272, 70_000) == 256
    assert tiles.width_at(0, 273, 70_000) == 112
    assert tiles.width_at(0, 274, 70_000) == 0
    assert tiles.width_at(1, 1, 70_000) == 17


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_entry_bundles_read_back(entries):
    data = tiles.encode_entry_bundle(entries)
    assert tiles.decode_entry_bundle(data) == tuple(entries)
    assert tiles.decode_entry_bundle(data, width=len(entries)) == tuple(entries)
    with pytest.raises(Malformed):
        tiles.decode_entry_bundle(data, width=len(entries) + 1)


def test_each_truncation_of_an_entry_bundle_is_malformed():
    entries = [b"first", b"", b"third"]
    data = tiles.encode_entry_bundle(entries)
    for length in range(len(data)):
        with pytest.raises(Malformed):
            tiles.decode_entry_bundle(data[:length], width=3)
    for tail in [b"\x00", b"\x00\x01"]:
        with pytest.raises(Malformed):
            tiles.decode_entry_bundle(data + tail, width=3)


def test_bundles_hold_1_to_256_entries_of_at_most_65535_bytes():
    longest = b"x" * 65_535
    assert tiles.decode_entry_bundle(tiles.encode_entry_bundle([longest])) == (longest,)
    for entries in [[], [b""] * 257, [longest + b"x"]]:
        with pytest.raises(Malformed):
            tiles.encode_entry_bundle(entries)
    for data in [b"", b"\x00\x00" * 257]:
        with pytest.raises(Malformed):
            tiles.decode_entry_bundle(data)


def test_a_peers_log_of_15_entries_gives_its_checkpoints(vectors):
    folder = vectors / "tlog" / "tessera-testlog"
    hashes = []
    for size in range(1, 16):
        entries = tiles.decode_entry_bundle((folder / tiles.entries_path(0, size)).read_bytes(), width=size)
        hashes = [merkle.leaf_hash(entry) for entry in entries]
        assert b"".join(hashes) == (folder / tiles.tile_path(0, 0, size)).read_bytes()
        assert checkpoint_lines(folder / f"checkpoint.{size}") == (size, merkle.root_of(hashes))
        tree = HashTree(size, Folder(folder))
        assert tree.root() == merkle.root_of(hashes)
        for index in range(size):
            merkle.verify_inclusion(index, size, hashes[index], tree.inclusion_path(index), tree.root())
            old = merkle.root_of(hashes[: index + 1])
            merkle.verify_consistency(index + 1, size, old, tree.root(), tree.consistency_path(index + 1))
    assert checkpoint_lines(folder / "checkpoint.0") == (0, merkle.EMPTY_ROOT)
    assert checkpoint_lines(folder / "checkpoint") == (15, merkle.root_of(hashes))


def test_a_peers_mirror_of_300_entries_gives_its_root(vectors):
    folder = vectors / "tlog" / "sunlight-mirror300" / "mirror" / MIRROR
    assert hashlib.sha256(b"rome2026h1.example.org").hexdigest() == MIRROR
    size, root = checkpoint_lines(folder / "checkpoint")
    hashes = [merkle.leaf_hash(b"record %d" % index) for index in range(300)]
    frontier, full = Frontier().append(hashes)
    assert full == (FullTile(0, 0, (folder / "tile/0/000").read_bytes()),)
    assert frontier.tile(0) == (folder / "tile/0/001.p/44").read_bytes()
    assert frontier.tile(1) == (folder / "tile/1/000.p/1").read_bytes()
    assert frontier.tile(2) == b""
    assert size == 300
    assert frontier.root() == tiles.root_at(300, Folder(folder)) == root
    for index in (0, 127, 255, 256, 299):
        path = tiles.inclusion_path(index, 300, Folder(folder))
        merkle.verify_inclusion(index, 300, hashes[index], path, root)


def test_roots_and_frontiers_agree_for_every_size_up_to_600():
    hashes = leaves(600)
    shelf = Shelf()
    for size in range(601):
        assert shelf.frontier.root() == tiles.root_at(size, shelf) == merkle.root_of(hashes[:size])
        assert Frontier.parse(bytes(shelf.frontier)) == shelf.frontier
        assert tuple(len(tile) // 32 for tile in shelf.frontier.tiles) == tiles.partial_widths(size)
        shelf.append(hashes[size : size + 1])


def test_batches_give_the_tiles_that_single_appends_give():
    hashes = leaves(66_000)
    one, other = Shelf(), Shelf()
    one.append(hashes)
    for position in range(0, len(hashes), 997):
        other.append(hashes[position : position + 997])
    assert one.full == other.full
    assert one.frontier == other.frontier
    assert (2, 0) not in one.full
    assert (1, 0) in one.full
    size = len(hashes)
    root = merkle.root_of(hashes)
    assert one.frontier.root() == tiles.root_at(size, one) == root
    for index in (0, 255, 256, 65_535, 65_536, size - 1):
        path = tiles.inclusion_path(index, size, one)
        merkle.verify_inclusion(index, size, hashes[index], path, root)
    for old in (1, 255, 256, 257, 65_535, 65_536, 65_537, size):
        path = tiles.consistency_path(old, size, one)
        merkle.verify_consistency(old, size, merkle.root_of(hashes[:old]), root, path)


def test_an_empty_append_changes_nothing():
    frontier, _ = Frontier().append(leaves(3))
    assert frontier.append([]) == (frontier, ())


def test_proofs_of_an_earlier_size_come_from_todays_tiles():
    hashes = leaves(700)
    shelf = Shelf()
    shelf.append(hashes)
    for size in (1, 255, 256, 257, 511, 512, 513, 699):
        tree = HashTree(size, shelf)
        assert tree.root() == merkle.root_of(hashes[:size])
        assert tree.inclusion_path(size - 1) == merkle.path_in(hashes[:size], size - 1)


def test_a_tile_is_read_once_per_tree():
    shelf = Shelf()
    shelf.append(leaves(300))
    tree = HashTree(300, shelf)
    for index in range(300):
        tree.inclusion_path(index)
        assert tree.leaf(index) == merkle.leaf_hash(b"entry %d" % index)
    assert shelf.reads == 3


def test_the_cache_of_a_tree_is_bounded():
    class Endless:
        def tile(self, level, n, width):
            return bytes(32 * width)

    tree = HashTree(4_000 * 256, Endless())
    for n in range(3_000):
        tree.leaf(n * 256)
    assert len(tree._full) <= 2048


def test_trees_of_several_sizes_read_a_full_tile_once_and_never_share_an_open_one():
    hashes, shelf = leaves(900), Shelf()
    shelf.append(hashes[:600])
    tree = HashTree(600, shelf)
    assert tree.inclusion_path(0) == merkle.path_in(hashes[:600], 0)
    assert shelf.reads == 3
    shelf.append(hashes[600:])
    for size in (900, 601, 600, 257, 256):
        other = tree.resized(size)
        assert other.root() == merkle.root_of(hashes[:size])
        assert other.inclusion_path(255) == merkle.path_in(hashes[:size], 255)
    before = shelf.reads
    assert tree.resized(900).inclusion_path(0) == merkle.path_in(hashes, 0)
    assert shelf.reads == before + 2, "the open tile of each level"
    assert tree.inclusion_path(599) == merkle.path_in(hashes[:600], 599)


def test_a_wrong_tile_gives_a_proof_that_does_not_verify():
    hashes = leaves(300)
    shelf = Shelf()
    shelf.append(hashes)
    root = shelf.frontier.root()
    wrong = bytearray(shelf.full[0, 0])
    wrong[32] ^= 1
    shelf.full[0, 0] = bytes(wrong)
    with pytest.raises(InvalidProof):
        merkle.verify_inclusion(0, 300, hashes[0], tiles.inclusion_path(0, 300, shelf), root)


def test_a_short_or_long_tile_is_malformed():
    for difference in (-1, 1):

        class Wrong:
            def tile(self, level, n, width, difference=difference):
                return bytes(32 * width + difference)

        with pytest.raises(Malformed):
            tiles.root_at(10, Wrong())


def test_impossible_numbers_are_malformed():
    shelf = Shelf()
    shelf.append(leaves(4))
    for call in (
        lambda: HashTree(-1, shelf),
        lambda: HashTree(2**63, shelf),
        lambda: HashTree(4, shelf).leaf(4),
        lambda: HashTree(4, shelf).leaf(-1),
        lambda: tiles.inclusion_path(4, 4, shelf),
        lambda: tiles.consistency_path(0, 4, shelf),
        lambda: tiles.consistency_path(5, 4, shelf),
        lambda: Frontier().append([b"short"]),
        lambda: Frontier(2**63 - 1, ()).append(leaves(1)),
    ):
        with pytest.raises(Malformed):
            call()


def test_each_truncation_of_a_frontier_is_malformed():
    frontier, _ = Frontier().append(leaves(5))
    data = bytes(frontier)
    for length in range(len(data)):
        with pytest.raises(Malformed):
            Frontier.parse(data[:length])
    with pytest.raises(Malformed):
        Frontier.parse(data + b"\x00")
    with pytest.raises(Malformed):
        Frontier.parse((2**63).to_bytes(8) + bytes(32 * sum(tiles.partial_widths(2**63))))


@given(st.lists(st.integers(0, 600), max_size=6))
def test_any_sequence_of_batches_gives_the_same_root(batches):
    shelf = Shelf()
    hashes = leaves(sum(batches))
    position = 0
    for count in batches:
        shelf.append(hashes[position : position + count])
        position += count
    assert shelf.frontier.root() == merkle.root_of(hashes)
