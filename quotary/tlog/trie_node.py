"""The nodes of the prefix trie as bytes (``docs/formats/trie.md``); a node's name is the SHA-256 of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quotary.errors import Malformed

KEY_LENGTH = 32
VALUE_LENGTH = 32
HASH_LENGTH = 32
LEAF_BODY_LENGTH = 1 + KEY_LENGTH + 1 + VALUE_LENGTH

_KEY_BITS = 8 * KEY_LENGTH
_LEAF, _INNER = 0x00, 0x01


class NodeStore(Protocol):
    """Where nodes are kept, by their SHA-256."""

    def get(self, node_hash: bytes) -> bytes:
        """Return the bytes that were put under ``node_hash``."""

    def get_all(self, node_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the same of many at once."""

    def put(self, node_hash: bytes, data: bytes) -> None:
        """Keep ``data`` under ``node_hash``; putting it again changes nothing."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One pair of the map."""

    key: bytes
    value: bytes

    def __bytes__(self) -> bytes:
        return leaf_bytes(self.key, self.value)


@dataclass(frozen=True, slots=True)
class Inner:
    """A fork at ``bit`` (0 to 255): hashes of the nodes with that bit 0 and 1."""

    bit: int
    left: bytes
    right: bytes

    def __bytes__(self) -> bytes:
        return inner_bytes(self.bit, self.left, self.right)


def parse_node(data: bytes) -> Leaf | Inner:
    """Read a node as it is stored."""
    if data[:1] == bytes([_LEAF]):
        return parse_leaf_body(data[1:])
    if data[:1] != bytes([_INNER]):
        raise Malformed("a trie node starts with 0x00 or 0x01")
    bit, length = parse_varint(data[1:])
    hashes = data[1 + length :]
    if len(hashes) != 2 * HASH_LENGTH:
        raise Malformed(f"an inner trie node has two hashes, found {len(hashes)} bytes")
    return Inner(bit, hashes[:HASH_LENGTH], hashes[HASH_LENGTH:])


def checked_node(node_hash: bytes, data: bytes) -> Leaf | Inner:
    """Read a node after a look at whether it is the one that was asked for."""
    if hashlib.sha256(data).digest() != node_hash:
        raise Malformed(f"the store has other bytes under {node_hash.hex()}")
    return parse_node(data)


def leaf_bytes(key: bytes, value: bytes) -> bytes:
    """Write a leaf."""
    return b"%c%c%b%c%b" % (_LEAF, len(key), key, len(value), value)


def inner_bytes(bit: int, left: bytes, right: bytes) -> bytes:
    """Write a fork."""
    return b"%b%b%b" % (_FORKS[bit], left, right)


def leaf_body(key: bytes, value: bytes) -> bytes:
    """Return a leaf without its type byte, as absence proofs show it."""
    return b"%c%b%c%b" % (len(key), key, len(value), value)


def parse_leaf_body(data: bytes) -> Leaf:
    """Read a leaf without its type byte."""
    key, value = data[1 : 1 + KEY_LENGTH], data[2 + KEY_LENGTH :]
    # Writing it again is the whole check: both lengths are one byte of value 32.
    if len(data) != LEAF_BODY_LENGTH or leaf_body(key, value) != data:
        raise Malformed("not a trie leaf of a 32-byte key and a 32-byte value")
    return Leaf(key, value)


def varint(number: int) -> bytes:
    """Return 0 to 255 as minimal unsigned varint (base 128, low group first)."""
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])


def parse_varint(data: bytes) -> tuple[int, int]:
    """Return a bit number at the start of ``data`` and the length of its varint."""
    length = 2 if data[:1] >= b"\x80" else 1
    number = sum((byte & 0x7F) << 7 * position for position, byte in enumerate(data[:length]))
    if number >= _KEY_BITS or varint(number) != data[:length]:
        raise Malformed("not the varint of a bit number below 256")
    return number, length


def bit_of(key: bytes, bit: int) -> int:
    """Return a bit of a key; bit 0 is the most significant of the first byte."""
    return key[bit >> 3] >> (7 - (bit & 7)) & 1


# How a fork at each bit begins: an auditor hashes some ten forks an entry.
_FORKS = tuple(bytes([_INNER]) + varint(bit) for bit in range(_KEY_BITS))
