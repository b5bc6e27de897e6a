"""F1's state as bytes, so that an auditor need not replay a log at each run.

A snapshot is a cache of whoever made it and proves nothing to anybody else: a digest keeps it from being
half written or flipped, and only a full replay says that it is right.

    quotary-f1-snapshot/v1\\n  <SHA-256 of the rest, hex>\\n  one JSON object
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from quotary.errors import Malformed
from quotary.statements.records import ServiceRecord, parse_record
from quotary.statements.state import Changes, Released, held_by

MAGIC = b"quotary-f1-snapshot/v1\n"


def encode_state(origin: str, following: int, state: Changes) -> bytes:
    """Write a state; ``following`` is the lowest index that the next entry may have."""
    document = {
        "origin": origin,
        "next": following,
        "records": [record.encode().decode("utf-8") for record in state.records.values()],
        "releases": [
            [
                name,
                item.service,
                item.index,
                sorted(item.signers),
                [found.hex() for found in item.measurements],
            ]
            for name, item in state.releases.items()
        ],
        "denied": [[measurement.hex(), reason] for measurement, reason in state.denied.items()],
        "sequences": [[service, kind, last] for (service, kind), last in state.sequences.items()],
        "effective": sorted(state.effective),
    }
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return MAGIC + hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body


def decode_state(origin: str, data: bytes, entry_at: Callable[[int], bytes]) -> tuple[int, Changes]:
    """Read a state back; ``entry_at`` gives the log's entries, for the delegations that are in force.

    Raises ``Malformed`` for anything else than a whole snapshot of this log.
    """
    digest, separator, body = data.removeprefix(MAGIC).partition(b"\n")
    whole = hashlib.sha256(body).hexdigest().encode("ascii") == digest
    if not data.startswith(MAGIC) or not separator or not whole:
        raise Malformed("not a whole snapshot of F1's state")
    try:
        document = json.loads(body)
        if not all(isinstance(name, str) for name in [*document["effective"], document["origin"]]):
            raise Malformed("the snapshot's names are no texts")
        if isinstance(document["effective"], str) or document["origin"] != origin:
            raise Malformed(f"the snapshot is of the log {document['origin']}")
        return int(document["next"]), _state(document, entry_at)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"the snapshot cannot be read: {error}") from error


def _state(document: Any, entry_at: Callable[[int], bytes]) -> Changes:
    state = Changes(effective=set(document["effective"]))
    for text in document["records"]:
        record = parse_record(text.encode("utf-8"))
        state.store(record)
        if isinstance(record, ServiceRecord):
            state.held[record.service] = held_by(record, entry_at(record.index))
    for name, service, index, signers, measurements in document["releases"]:
        ids = tuple(map(bytes.fromhex, measurements))
        state.releases[name] = Released(service, int(index), frozenset(signers), ids)
    for measurement, reason in document["denied"]:
        state.denied[bytes.fromhex(measurement)] = reason
    for service, kind, last in document["sequences"]:
        state.sequences[service, kind] = int(last)
    return state
