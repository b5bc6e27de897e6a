"""Bundles: all that a boot check needs of the log, in one file under one checkpoint (design section 5).

Everything in a bundle is proven by what it holds; this module only gathers, and decides nothing.
"""

import hashlib
from collections.abc import Sequence

from quotary.canonical import Fields, parse_canonical
from quotary.errors import InvalidProof, Malformed
from quotary.statements.bundle import AbsenceBundle, Bundle, Included, Proven
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.release import Release
from quotary.statements.schema import Statement, parse_statement
from quotary.tlog import trie
from registry.errors import Damaged
from registry.public import Place, PublicLog, Snapshot

MAX_RECORD = 1 << 20


class Bundles:
    """The bundles of one published checkpoint; what several of them share is gathered once."""

    def __init__(self, public: PublicLog, snapshot: Snapshot) -> None:
        self._public = public
        self._snapshot = snapshot
        self._tree = public.tree(snapshot)
        self._entries: dict[int, Included] = {}
        self._records: dict[bytes, bytes] = {}
        self._releases: dict[str, int] = {}
        self._proven: dict[bytes, Proven | None] = {}
        self._services: dict[str, tuple[Included, ...]] = {}
        self._products: dict[bytes, tuple[str, str]] | None = None

    def prepare(self, places: Sequence[Place]) -> None:
        """Fetch in a few queries what the bundles of many measurements need."""
        read, size = self._public.read, self._snapshot.size
        keys = [key_measurement(service, measurement) for measurement, service in places]
        services = [key_service(service) for service in {service for _, service in places}]
        self._public.nodes.prepare(self._snapshot.trie_root, keys + services)
        self._records = read.newest_records(keys, size)
        named = [name for record in self._records.values() if (name := _release_of(record))]
        self._releases = read.effective(named, size)

    def of(self, service: str, measurement: bytes) -> bytes:
        """Give the bundle of a measurement id (32 bytes), or the absence bundle where the map has none."""
        key = key_measurement(service, measurement)
        status = self._record(key)
        state = self._included(self._snapshot.size - 1)
        if status is None:
            proof = trie.prove(self._public.nodes, self._snapshot.trie_root, key)
            return AbsenceBundle(self._snapshot.note, state, key, proof).encode()
        index = self._release_index(status.record)
        release = self._included(index) if index is not None else None
        floors = self._floor_keys(release.entry) if release is not None else []
        records = [self._cached_record(found) for found in (key_service(service), *floors)]
        return Bundle(
            self._snapshot.note,
            state,
            release,
            self._authority(service),
            (status, *(record for record in records if record is not None)),
        ).encode()

    def floors(self, platform: str) -> list[bytes]:
        """Give the records of all TCB floors of a platform."""
        found = [self._cached_record(key) for key in self._keys_of({platform})]
        return [item.record for item in found if item is not None]

    def _included(self, index: int) -> Included:
        if index not in self._entries:
            entry = self._public.entry(index, self._snapshot.size)
            self._entries[index] = Included(index, entry, self._tree.inclusion_path(index))
        return self._entries[index]

    def _record(self, key: bytes) -> Proven | None:
        record = self._records.get(key) or self._public.read.record(key, self._snapshot.size)
        if record is None:
            return None
        root, digest = self._snapshot.trie_root, hashlib.sha256(record).digest()
        proof = trie.prove(self._public.nodes, root, key)
        try:
            trie.verify_presence(root, key, digest, proof)
        except (InvalidProof, Malformed) as error:
            wanted = trie.lookup(self._public.nodes, root, key)
            raise Damaged("record", digest.hex(), wanted.hex() if wanted else "none in the map") from error
        return Proven(record, proof)

    def _cached_record(self, key: bytes) -> Proven | None:
        if key not in self._proven:
            self._proven[key] = self._record(key)
        return self._proven[key]

    def _release_index(self, record: bytes) -> int | None:
        """Find the release that a status names; a measurement revoked before its release names none."""
        name = _release_of(record)
        if name is None or name in self._releases:
            return self._releases.get(name or "")
        return self._public.read.effective([name], self._snapshot.size).get(name)

    def _authority(self, service: str) -> tuple[Included, ...]:
        """Give the genesis and the service's effective delegations, in log order."""
        if service not in self._services:
            rows = self._public.read.by_service(service, self._snapshot.size, "delegation")
            indices = [0, *(row.index for row in rows if row.effect and row.index > 0)]
            self._services[service] = tuple(map(self._included, indices))
        return self._services[service]

    def _floor_keys(self, release: bytes) -> list[bytes]:
        """Find the floors of all products of the rows' platforms and of the devices that the rows demand."""
        predicate = _statement(release).predicate
        assert isinstance(predicate, Release)
        names = {row.platform for row in predicate.rows}
        names |= {device.architecture for row in predicate.rows for device in row.require.devices}
        return self._keys_of(names)

    def _keys_of(self, names: set[str]) -> list[bytes]:
        if self._products is None:
            rows = self._public.read.by_kind("tcb-floor", self._snapshot.size)
            size = self._snapshot.size
            found = [_statement(self._public.entry(row.index, size)).predicate for row in rows if row.effect]
            pairs = [(floor.platform, floor.product) for floor in found if isinstance(floor, TCBFloor)]
            self._products = {key_tcb(*pair): pair for pair in pairs}
        return [key for key, pair in self._products.items() if names & set(pair)]


def _release_of(record: bytes) -> str | None:
    fields = Fields(parse_canonical(record, MAX_RECORD), "record")
    return fields.optional("release", fields.text)


def _statement(entry: bytes) -> Statement:
    return parse_statement(Envelope.parse(entry).payload)
