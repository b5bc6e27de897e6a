"""Hash trees over disk images: every block of data is under the root."""

import hashlib
import struct
from pathlib import Path

import pytest

from builder.verity import BLOCK, Tree, append_tree, salt_of


def read_block(image: bytes, tree: Tree, number: int) -> bytes:
    """Check one data block from the root downwards, as the kernel does, and return it."""

    def digest(block: bytes) -> bytes:
        return hashlib.sha256(tree.salt + block).digest()

    sizes = []
    count = tree.blocks
    while count > 1:
        count = -(-count // 128)
        sizes.append(count)
    starts, at = {}, tree.blocks + 1
    for level in reversed(range(len(sizes))):
        starts[level] = at
        at += sizes[level]
    wanted = tree.root
    for level in reversed(range(len(sizes))):
        place = number // 128 ** (level + 1)
        block = image[(starts[level] + place) * BLOCK :][:BLOCK]
        if digest(block) != wanted:
            raise ValueError(f"level {level}")
        wanted = block[32 * (number // 128**level % 128) :][:32]
    data = image[number * BLOCK :][:BLOCK]
    if digest(data) != wanted:
        raise ValueError("data")
    return data


def make(path: Path, blocks: int) -> tuple[bytes, Tree]:
    path.write_bytes(b"".join(struct.pack(">I", number) * 1024 for number in range(blocks)))
    tree = append_tree(path, "test")
    return path.read_bytes(), tree


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 200, 128 * 128 + 1])
def test_every_level_of_the_tree_leads_to_the_root(tmp_path: Path, blocks: int) -> None:
    image, tree = make(tmp_path / "image", blocks)
    assert tree.blocks == blocks
    for number in {0, 1 % blocks, blocks // 2, blocks - 1}:
        assert read_block(image, tree, number) == struct.pack(">I", number) * 1024


def test_one_changed_bit_anywhere_under_the_root_is_seen(tmp_path: Path) -> None:
    image, tree = make(tmp_path / "image", 130)
    for number in (0, 5, 129, 131, 132, 133):  # data, the tree's top block, and its two leaf blocks
        broken = bytearray(image)
        broken[number * BLOCK + 33 * (number > 130)] ^= 1
        with pytest.raises(ValueError, match=r"level|data"):
            [read_block(bytes(broken), tree, block) for block in range(130)]


def test_the_same_data_always_gives_the_same_image(tmp_path: Path) -> None:
    assert make(tmp_path / "one", 9) == make(tmp_path / "two", 9)
    assert salt_of("rootfs") != salt_of("model")


def test_data_is_padded_to_blocks_and_a_lone_block_is_its_own_root(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x")
    tree = append_tree(tmp_path / "image", "one")
    assert tree.root == hashlib.sha256(tree.salt + b"x" + bytes(4095)).digest()
    assert str(tree) == f"{tree.root.hex()}:1:{tree.salt.hex()}"


def test_nothing_has_no_tree(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    with pytest.raises(ValueError, match="empty"):
        append_tree(tmp_path / "image", "none")


def test_the_superblock_says_what_the_tree_is(tmp_path: Path) -> None:
    image, tree = make(tmp_path / "image", 3)
    block = image[3 * BLOCK : 4 * BLOCK]
    assert block[:16] == b"verity\0\0" + struct.pack("<II", 1, 1)
    assert block[32:64].rstrip(b"\0") == b"sha256"
    assert struct.unpack("<IIQH", block[64:82]) == (4096, 4096, 3, 32)
    assert block[88:120] == tree.salt
