"""What the judge found out about a release, sealed for the sequencer of the same registry.

Reading a release and verifying its signatures is most of what it costs. The judge has done it, in a process
that no network reaches, and the sequencer believes it under a key of this start of the registry, which both
got from ``serve`` and no worker has or can take (``registry/apart.py``). Without a seal, or with one that
does not hold (an order, another machine's worker, a start before this one), the sequencer does it all itself.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from quotary.codec import CODEC
from quotary.statements.envelope import Envelope, Signature, verify
from quotary.statements.opened import Opened
from quotary.statements.predicates import Header
from quotary.statements.release import Release, ReleaseClaim
from quotary.statements.schema import Statement
from quotary.statements.terms import terms_in

KEY_LENGTH = 32
TAG_LENGTH = 32
# At most 16 bytes; another meaning of the sealed bytes is another person.
PERSON = b"quotary/seal/v1"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a seal says of one entry.

    opened: as F1 asks for it; terms: its search terms
    keys:   public keys (32 bytes) under which the envelope's signatures hold, in their order
    """

    opened: Opened
    terms: frozenset[str]
    keys: tuple[bytes, ...]


class Seal:
    """Seals and opens under one key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_LENGTH
        self._key = key

    def close(self, leaf_hash: bytes, opened: Opened, keys: Sequence[bytes]) -> bytes | None:
        """Seal what is so of the entry with this leaf hash; None of what is no release, which is rare."""
        statement = opened.statement
        if statement is None or not isinstance(statement.predicate, Release):
            return None
        claim = statement.predicate.claim
        body = CODEC.write(
            [
                statement.statement_id,
                claim.header.log,
                claim.header.service,
                claim.header.sequence,
                int(claim.header.issued.timestamp()),
                int(claim.not_after.timestamp()),
                [measurement.hex() for measurement in claim.measurements],
                [key.hex() for key in keys],
                sorted(terms_in(opened)),
            ]
        )
        return self._tag(leaf_hash, body) + body

    def open(self, leaf_hash: bytes, entry: bytes, sealed: bytes) -> Finding | None:
        """Give what was sealed of an entry; ``leaf_hash`` is computed from it. None unless the seal holds."""
        tag, body = sealed[:TAG_LENGTH], sealed[TAG_LENGTH:]
        if not hmac.compare_digest(tag, self._tag(leaf_hash, body)):
            return None
        found: Any = CODEC.read(body)
        name, log, service, sequence, issued, not_after, measurements, keys, terms = found
        header = Header(log, service, sequence, datetime.fromtimestamp(issued, UTC))
        ids = tuple(map(bytes.fromhex, measurements))
        claim = ReleaseClaim(header, datetime.fromtimestamp(not_after, UTC), ids)
        opened = Opened(Envelope.parse(entry), Statement("release", name, claim))
        return Finding(opened, frozenset(terms), tuple(map(bytes.fromhex, keys)))

    def _tag(self, leaf_hash: bytes, body: bytes) -> bytes:
        found = hashlib.blake2b(leaf_hash, digest_size=TAG_LENGTH, key=self._key, person=PERSON)
        found.update(body)
        return found.digest()


class Held:
    """Signatures that hold already; every other one is verified."""

    def __init__(self) -> None:
        self._held: set[tuple[bytes, bytes, bytes]] = set()

    def add(self, finding: Finding) -> None:
        """Believe the signatures of an entry."""
        envelope = finding.opened.envelope
        assert envelope is not None  # a seal speaks of releases
        for key, signature in zip(finding.keys, envelope.signatures, strict=True):
            self._held.add((key, signature.sig, envelope.payload))

    def verify(self, key: bytes, signature: Signature, payload: bytes) -> None:
        """Return if the key signed the payload, else raise ``InvalidSignature``."""
        if (key, signature.sig, payload) not in self._held:
            verify(key, signature, payload)


@contextmanager
def new_key() -> Iterator[int]:
    """Make a key, and give a descriptor from which children read it."""
    descriptor = os.memfd_create("quotary-seal")
    try:
        os.write(descriptor, secrets.token_bytes(KEY_LENGTH))
        yield descriptor
    finally:
        os.close(descriptor)


def take_key(descriptor: int) -> Seal:
    """Read the key that a parent handed on."""
    try:
        return Seal(os.pread(descriptor, KEY_LENGTH, 0))
    finally:
        os.close(descriptor)
