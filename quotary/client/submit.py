"""Sending signed statements to a log, and holding its answer against what was sent."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quotary.client.log import LogClient
from quotary.errors import CannotTell, Rejected
from quotary.statements.envelope import Envelope

ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a log said about an entry; a promise or a place, both still to be verified by a proof.

    leaf_hash: 32 bytes, ``SHA-256(0x00 | entry)``
    index:     the entry's place once it is published, else None
    promise:   the log's signed promise to publish it, else None; a missed promise is evidence
    """

    statement_id: str
    leaf_hash: bytes
    index: int | None
    promise: object


def submit(
    log: LogClient, entry: bytes, *, wait: bool = False, tick: Callable[[], None] | None = None
) -> Submitted:
    """Send an entry; sending the same bytes again is safe and gives the place of the first.

    wait: return only when the entry is published, or raise ``CannotTell``
    tick: called before each further round of waiting, e.g. to show that something happens
    """
    statement_id = Envelope.parse(entry).statement_id
    leaf_hash = hashlib.sha256(b"\x00" + entry).digest()
    found = _answer(log.post_entry(entry, wait=wait), statement_id, leaf_hash)
    for _ in range(ROUNDS if wait and found.index is None else 0):
        if tick is not None:
            tick()
        found = _answer(log.post_entry(entry, wait=True), statement_id, leaf_hash)
        if found.index is not None:
            break
    if wait and found.index is None:
        raise CannotTell(
            f"{log.url} has promised to publish {statement_id} and has not yet",
            next_command=f"quotary proof {leaf_hash.hex()} --log {log.url}",
        )
    return found


def _answer(document: Mapping[str, object], statement_id: str, leaf_hash: bytes) -> Submitted:
    for name, wanted in (("statement_id", statement_id), ("leaf_hash", leaf_hash.hex())):
        if document.get(name) != wanted:
            raise Rejected("log's answer", f"{name} {str(document.get(name))[:80]}", wanted)
    index = document.get("index")
    published = document.get("published") is True and isinstance(index, int)
    return Submitted(
        statement_id,
        leaf_hash,
        index if published and isinstance(index, int) else None,
        document.get("promise"),
    )
