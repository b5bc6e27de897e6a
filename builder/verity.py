"""dm-verity hash trees, written with the standard library only (kernel: admin-guide/device-mapper/verity).

Format version 1, SHA-256, 4096-byte blocks. The image is ``data || superblock || tree``: the superblock
makes the image acceptable to ``veritysetup verify``; the kernel is told root, salt and offsets by the
measured command line instead. The salt derives from a label, so the same data always gives the same image.
This module also runs inside the build sandbox, hence nothing of ours is imported.
"""

import hashlib
import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO

BLOCK = 4096
DIGEST = 32
PER_BLOCK = BLOCK // DIGEST
SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
NAMESPACE = uuid.UUID("5d0c7c0e-5f0e-5b0a-9d53-3f2f8f1f7a11")
READ_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class Tree:
    """What a kernel needs to check an image.

    root:   32 bytes, digest of the tree's top block (of the only data block where there is just one)
    blocks: number of 4096-byte data blocks
    salt:   32 bytes, prepended to every block that is hashed
    """

    root: bytes
    blocks: int
    salt: bytes

    def __str__(self) -> str:
        return f"{self.root.hex()}:{self.blocks}:{self.salt.hex()}"


def salt_of(label: str) -> bytes:
    """Return the salt of an image: SHA-256 over its label, so that anybody can derive it again."""
    return hashlib.sha256(f"quotary-verity/v1\n{label}".encode()).digest()


def append_tree(image: Path, label: str) -> Tree:
    """Pad ``image`` to whole blocks, append superblock and hash tree, and return what pins it."""
    salt = salt_of(label)
    with image.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(bytes(-file.tell() % BLOCK))
        blocks = file.tell() // BLOCK
        if not blocks:
            raise ValueError("an empty image has no hash tree")
        file.seek(0)
        levels = _levels(_leaf_digests(file, salt), salt)
        file.seek(blocks * BLOCK)
        file.write(_superblock(blocks, salt, label))
        for level in reversed(levels[:-1]):
            file.write(b"".join(_packed(level)))
    return Tree(levels[-1][0], blocks, salt)


def _leaf_digests(file: IO[bytes], salt: bytes) -> list[bytes]:
    start = hashlib.sha256(salt)
    found = []
    while chunk := file.read(READ_BLOCKS * BLOCK):
        for at in range(0, len(chunk), BLOCK):
            digest = start.copy()
            digest.update(chunk[at : at + BLOCK])
            found.append(digest.digest())
    return found


def _levels(leaves: list[bytes], salt: bytes) -> list[list[bytes]]:
    """Return digests from the leaves up to the root; the last level is the root alone."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        levels.append([hashlib.sha256(salt + block).digest() for block in _packed(levels[-1])])
    return levels


def _packed(level: list[bytes]) -> list[bytes]:
    joined = [b"".join(level[at : at + PER_BLOCK]) for at in range(0, len(level), PER_BLOCK)]
    return [block + bytes(BLOCK - len(block)) for block in joined]


def _superblock(blocks: int, salt: bytes, label: str) -> bytes:
    identity = uuid.uuid5(NAMESPACE, label).bytes
    text = SUPERBLOCK.pack(b"verity", 1, 1, identity, b"sha256", BLOCK, BLOCK, blocks, len(salt), salt)
    return text + bytes(BLOCK - len(text))
