"""A release's reference values as CoRIM (draft-ietf-rats-corim, CBOR), for verifiers that are not ours.

One unsigned CoRIM with one CoMID. Every register is a measurement of its own with all admitted ``digests``,
and every row is one with ``integrity-registers`` under its measurement id, so that registers of different
rows cannot be mixed. It carries digests alone: floors, status, configuration and devices stay in the log, and
who relies on a CoRIM has not asked the log. Format page: ``docs/formats/corim.md``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.cbor_encode import Encodable, Tagged, encode
from quotary.errors import Malformed
from quotary.statements.release import Release

CORIM, COMID = 501, 506
TAG_CREATOR = 0
ALGORITHMS: Mapping[int, int] = {32: 1, 48: 7}
"""Named information hash algorithms by digest length: sha-256 and sha-384."""

DIGESTS, INTEGRITY_REGISTERS = 2, 14


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured element: its key, and digests or integrity registers."""

    key: str
    digests: Sequence[bytes] = ()
    registers: Mapping[str, Sequence[bytes]] | None = None


@dataclass(frozen=True, slots=True)
class CoRIM:
    """What a CoRIM of one CoMID says.

    identity, tag: 16 bytes each
    entity:        who made it
    vendor, model: the environment that the measurements are of
    """

    identity: bytes
    tag: bytes
    entity: str
    vendor: str
    model: str
    measurements: tuple[Measurement, ...]

    def encode(self) -> bytes:
        """Write the tagged, unsigned CoRIM."""
        if len(self.identity) != 16 or len(self.tag) != 16 or not self.measurements:
            raise Malformed("a CoRIM needs two identities of 16 bytes and a measurement")
        environment: Encodable = {0: {1: self.vendor, 2: self.model}}
        triples: Encodable = [[environment, [_measurement(one) for one in self.measurements]]]
        comid: Encodable = {1: {0: self.tag}, 2: [{0: self.entity, 2: [TAG_CREATOR]}], 4: {0: triples}}
        return encode(Tagged(CORIM, {0: self.identity, 1: [Tagged(COMID, encode(comid))]}))


def corim_of(release: Release, statement_id: str) -> CoRIM:
    """Say a release in CoRIM; its identities follow from the statement id, so the same release is the same
    file."""
    digests: dict[str, set[bytes]] = {}
    rows = []
    for row in release.rows:
        for name, value in row.registers.items():
            digests.setdefault(f"{row.platform}/{name}", set()).add(value)
        together = {f"{row.platform}/{name}": [value] for name, value in row.registers.items()}
        rows.append(Measurement(row.measurement.hex(), registers=together))
    single = [Measurement(key, sorted(digests[key])) for key in sorted(digests)]
    ordered = sorted(rows, key=lambda one: one.key)
    return CoRIM(
        _uuid("corim", statement_id),
        _uuid("comid", statement_id),
        release.header.service,
        release.header.log,
        release.header.service,
        (*single, *ordered),
    )


def _measurement(one: Measurement) -> Encodable:
    if one.registers is None:
        return {0: one.key, 1: {DIGESTS: [_digest(value) for value in one.digests]}}
    registers: dict[int | str, Encodable] = {
        name: [_digest(value) for value in values] for name, values in one.registers.items()
    }
    return {0: one.key, 1: {INTEGRITY_REGISTERS: registers}}


def _digest(value: bytes) -> Encodable:
    if len(value) not in ALGORITHMS:
        raise Malformed(f"no hash algorithm has {len(value)} bytes")
    return [ALGORITHMS[len(value)], value]


def _uuid(what: str, statement_id: str) -> bytes:
    # RFC 9562, version 8: from a hash that is ours.
    found = bytearray(hashlib.sha256(f"quotary-{what}/v1\n{statement_id}".encode()).digest()[:16])
    found[6] = found[6] & 0x0F | 0x80
    found[8] = found[8] & 0x3F | 0x80
    return bytes(found)
