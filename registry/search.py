"""Exact search over the published log: an index, a digest of any kind, a register, a key, an id, a service.

The index is written with the entries, and is this server's word: what it finds can be proven, what it does
not find cannot. ``registry fsck`` compares it with the entries, ``registry reindex`` makes it anew of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from registry.store import Reader

INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
HEX = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2})+)")
LONGEST = 256


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found.

    indices:  of entries, newest first
    complete: there are no more than these
    indexed:  every entry below this size was looked at
    """

    indices: tuple[int, ...]
    complete: bool
    indexed: int


def search(read: Reader, query: str, size: int, limit: int) -> Found:
    """Find the entries below ``size`` that a query names, at most ``limit`` of them."""
    text = query.strip()[: LONGEST + 1]
    if not text or len(text) > LONGEST or not text.isascii() or not text.isprintable():
        return Found((), True, size)
    found = sorted(set(_indices(read, text, size, limit + 1)), reverse=True)
    return Found(tuple(found[:limit]), len(found) <= limit, size)


def _indices(read: Reader, text: str, size: int, limit: int) -> Iterator[int]:
    if INDEX.fullmatch(text) and int(text) < size:
        yield int(text)
    for word in _spellings(text):
        yield from read.by_term(word, size, limit)
    yield from (row.index for row in read.newest_of(text, size, limit))
    if (match := HEX.fullmatch(text.lower())) and len(match[1]) == 64:
        digest = bytes.fromhex(match[1])
        index = read.find(digest)
        yield from () if index is None or index >= size else (index,)
        yield from read.newest_signed_by(digest, size, limit)


def _spellings(text: str) -> tuple[str, ...]:
    """Give a text as it stands and, if it is hex, in lower case with and without ``sha256:``."""
    match = HEX.fullmatch(text.lower())
    return (text,) if match is None else tuple({text, match[1], f"sha256:{match[1]}"})
