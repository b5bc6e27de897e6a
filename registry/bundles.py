"""Bundles: all that a boot check needs of the log, in one file under one checkpoint (design section 5).

Everything in a bundle is proven by what it holds; this module only gathers, and decides nothing.
"""

from collections.abc import Iterable

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.release import Release
from quotary.statements.schema import parse_statement
from quotary.tlog import trie
from quotary.tlog.tiles import HashTree
from registry.public import PublicLog, Snapshot

LOG_SERVICE = "log"
MAX_RECORD = 1 << 20


def make_bundle(public: PublicLog, snapshot: Snapshot, service: str, measurement: bytes) -> bytes:
    """Give the bundle of a measurement id (32 bytes), or the absence bundle where the map has none."""
    tree = public.tree(snapshot)
    key = key_measurement(service, measurement)
    record = public.read.record(key, snapshot.size)
    document: dict[str, object] = {
        "v": 1,
        "checkpoint": b64(snapshot.note),
        "state": _included(public, tree, snapshot.size - 1),
    }
    if record is None:
        document["absence"] = {
            "key": key.hex(),
            "proof": b64(trie.prove(public.nodes, snapshot.trie_root, key)),
        }
        return canonical(document)
    release = _release_index(public, snapshot, record)
    if release is not None:
        document["release"] = _included(public, tree, release)
    document["authority"] = [
        _included(public, tree, index) for index in _authority(public, snapshot, service)
    ]
    keys = [key, key_service(service), *_floor_keys(public, snapshot, release)]
    document["records"] = list(_records(public, snapshot, keys))
    return canonical(document)


def floors_of(public: PublicLog, size: int, platform: str) -> list[bytes]:
    """Give the records of all TCB floors of a platform."""
    found = (public.read.record(key, size) for key in _keys_of(public, size, frozenset({platform})))
    return [record for record in found if record is not None]


def _included(public: PublicLog, tree: HashTree, index: int) -> dict[str, object]:
    entry = public.read.entries(index, index + 1)[0]
    path = [b64(digest) for digest in tree.inclusion_path(index)]
    return {"index": index, "entry": b64(entry), "path": path}


def _release_index(public: PublicLog, snapshot: Snapshot, record: bytes) -> int | None:
    """Find the release that a status record names; a measurement revoked before its release names none."""
    fields = Fields(parse_canonical(record, MAX_RECORD), "record")
    if not fields.has("release"):
        return None
    rows = public.read.by_statement(fields.text("release"), snapshot.size)
    return next((row.index for row in rows if row.effect), None)


def _authority(public: PublicLog, snapshot: Snapshot, service: str) -> list[int]:
    """Give the indices of the genesis and of the service's effective delegations, in log order."""
    rows = public.read.by_service(service, snapshot.size, "delegation")
    return [0, *(row.index for row in rows if row.effect and row.index > 0)]


def _floor_keys(public: PublicLog, snapshot: Snapshot, release: int | None) -> list[bytes]:
    if release is None:
        return []
    statement = parse_statement(Envelope.parse(public.read.entries(release, release + 1)[0]).payload)
    assert isinstance(statement.predicate, Release)
    names = {row.platform for row in statement.predicate.rows}
    names |= {device.architecture for row in statement.predicate.rows for device in row.require.devices}
    return _keys_of(public, snapshot.size, frozenset(names))


def _keys_of(public: PublicLog, size: int, platforms: frozenset[str]) -> list[bytes]:
    """Give the map keys of every product with an effective floor on one of the platforms."""
    found: dict[bytes, None] = {}
    for row in public.read.by_kind("tcb-floor", size):
        if row.effect:
            floor = parse_statement(Envelope.parse(public.read.entries(row.index, row.index + 1)[0]).payload)
            assert isinstance(floor.predicate, TCBFloor)
            if floor.predicate.platform in platforms or floor.predicate.product in platforms:
                found[key_tcb(floor.predicate.platform, floor.predicate.product)] = None
    return list(found)


def _records(public: PublicLog, snapshot: Snapshot, keys: Iterable[bytes]) -> Iterable[dict[str, object]]:
    for key in keys:
        record = public.read.record(key, snapshot.size)
        if record is not None:
            yield {"record": b64(record), "proof": b64(trie.prove(public.nodes, snapshot.trie_root, key))}
