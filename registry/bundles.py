"""Bundles: all that a boot check needs of the log, in one file under one checkpoint (design section 5).

Everything in a bundle is proven by what it holds; this module only gathers, and decides nothing.
"""

import hashlib

from quotary.canonical import Fields, parse_canonical
from quotary.statements.bundle import AbsenceBundle, Bundle, Included, Proven
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.release import Release
from quotary.statements.schema import Statement, parse_statement
from quotary.tlog import trie
from registry.errors import Damaged
from registry.public import PublicLog, Snapshot

MAX_RECORD = 1 << 20


class Bundles:
    """The bundles of one published checkpoint; what several of them share is gathered once."""

    def __init__(self, public: PublicLog, snapshot: Snapshot) -> None:
        self._public = public
        self._snapshot = snapshot
        self._tree = public.tree(snapshot)
        self._proven: dict[bytes, Proven | None] = {}
        self._services: dict[str, tuple[Included, ...]] = {}
        self._products: dict[bytes, tuple[str, str]] | None = None

    def of(self, service: str, measurement: bytes) -> bytes:
        """Give the bundle of a measurement id (32 bytes), or the absence bundle where the map has none."""
        key = key_measurement(service, measurement)
        status = self._record(key)
        state = self._included(self._snapshot.size - 1)
        if status is None:
            proof = trie.prove(self._public.nodes, self._snapshot.trie_root, key)
            return AbsenceBundle(self._snapshot.note, state, key, proof).encode()
        index = self._release_index(status.record)
        floors = self._floor_keys(index) if index is not None else []
        records = [self._cached_record(found) for found in (key_service(service), *floors)]
        return Bundle(
            self._snapshot.note,
            state,
            self._included(index) if index is not None else None,
            self._authority(service),
            (status, *(record for record in records if record is not None)),
        ).encode()

    def floors(self, platform: str) -> list[bytes]:
        """Give the records of all TCB floors of a platform."""
        found = [self._cached_record(key) for key in self._keys_of({platform})]
        return [item.record for item in found if item is not None]

    def _included(self, index: int) -> Included:
        entry = self._public.entry(index, self._snapshot.size)
        return Included(index, entry, self._tree.inclusion_path(index))

    def _record(self, key: bytes) -> Proven | None:
        record = self._public.read.record(key, self._snapshot.size)
        if record is None:
            return None
        root, digest = self._snapshot.trie_root, hashlib.sha256(record).digest()
        if (wanted := trie.lookup(self._public.nodes, root, key)) != digest:
            raise Damaged("record", digest.hex(), wanted.hex() if wanted else "none in the map")
        return Proven(record, trie.prove(self._public.nodes, root, key))

    def _cached_record(self, key: bytes) -> Proven | None:
        if key not in self._proven:
            self._proven[key] = self._record(key)
        return self._proven[key]

    def _release_index(self, record: bytes) -> int | None:
        """Find the release that a status names; a measurement revoked before its release names none."""
        fields = Fields(parse_canonical(record, MAX_RECORD), "record")
        if not fields.has("release"):
            return None
        rows = self._public.read.by_statement(fields.text("release"), self._snapshot.size)
        return next((row.index for row in rows if row.effect), None)

    def _authority(self, service: str) -> tuple[Included, ...]:
        """Give the genesis and the service's effective delegations, in log order."""
        if service not in self._services:
            rows = self._public.read.by_service(service, self._snapshot.size, "delegation")
            indices = [0, *(row.index for row in rows if row.effect and row.index > 0)]
            self._services[service] = tuple(map(self._included, indices))
        return self._services[service]

    def _floor_keys(self, release: int) -> list[bytes]:
        """Find the floors of all products of the rows' platforms and of the devices that the rows demand."""
        predicate = self._statement(release).predicate
        assert isinstance(predicate, Release)
        names = {row.platform for row in predicate.rows}
        names |= {device.architecture for row in predicate.rows for device in row.require.devices}
        return self._keys_of(names)

    def _keys_of(self, names: set[str]) -> list[bytes]:
        if self._products is None:
            rows = self._public.read.by_kind("tcb-floor", self._snapshot.size)
            found = [self._statement(row.index).predicate for row in rows if row.effect]
            pairs = [(floor.platform, floor.product) for floor in found if isinstance(floor, TCBFloor)]
            self._products = {key_tcb(*pair): pair for pair in pairs}
        return [key for key, pair in self._products.items() if names & set(pair)]

    def _statement(self, index: int) -> Statement:
        return parse_statement(Envelope.parse(self._public.read.entries(index, index + 1)[0]).payload)
