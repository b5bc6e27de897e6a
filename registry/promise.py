"""Promises: the log's signed word that an entry will be published by a deadline (docs/formats/api.md).

A promise is a signed note under a key of its own, named ``<origin>/promise``. A verifier that holds one
past its deadline and a checkpoint later than the deadline without the entry has evidence against the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quotary.canonical import b64, unb64
from quotary.errors import InvalidProof, Malformed
from quotary.tlog.merkle import root_of
from quotary.tlog.note import Note, SigningKey, VerifierKey

CONTEXT = "quotary.dev/promise/v1"
BATCH_CONTEXT = "quotary.dev/batch-promise/v1"
MAX_PROMISES = 128
"""So many are signed for one request: their notes fit into one message of the signer's."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised.

    leaf_hash: 32 bytes, of the entry
    accepted:  Unix seconds when it was submitted; deadline: Unix seconds by when it is published
    """

    origin: str
    leaf_hash: bytes
    accepted: int
    deadline: int

    @classmethod
    def parse(cls, text: str) -> "Promise":
        try:
            context, origin, leaf, accepted, deadline, _ = text.split("\n")
            found = cls(origin, unb64(leaf, length=32), int(accepted), int(deadline))
        except ValueError as error:
            raise Malformed("a promise has five lines") from error
        if context != CONTEXT or not origin or found.accepted < 0 or str(found) != text:
            raise Malformed("not a canonical promise")
        return found

    def __str__(self) -> str:
        return f"{CONTEXT}\n{self.origin}\n{b64(self.leaf_hash)}\n{self.accepted}\n{self.deadline}\n"


@dataclass(frozen=True, slots=True)
class BatchPromise:
    """What is promised of entries that came together.

    count:    how many, 1 or more; root: of the tree over their leaf hashes, in their order (RFC 9162 section
              2.1.1), so that a path in it shows that the promise speaks of one of them
    accepted, deadline: as of one entry
    """

    origin: str
    count: int
    root: bytes
    accepted: int
    deadline: int

    @classmethod
    def parse(cls, text: str) -> "BatchPromise":
        try:
            context, origin, count, root, accepted, deadline, _ = text.split("\n")
            found = cls(origin, int(count), unb64(root, length=32), int(accepted), int(deadline))
        except ValueError as error:
            raise Malformed("a promise of a batch has six lines") from error
        if (
            context != BATCH_CONTEXT
            or not origin
            or found.count < 1
            or found.accepted < 0
            or str(found) != text
        ):
            raise Malformed("not a canonical promise of a batch")
        return found

    def __str__(self) -> str:
        place = f"{self.origin}\n{self.count}\n{b64(self.root)}"
        return f"{BATCH_CONTEXT}\n{place}\n{self.accepted}\n{self.deadline}\n"


def sign_promise(promise: Promise | BatchPromise, key: SigningKey) -> bytes:
    """Make the signed note."""
    text = str(promise)
    return (text + "\n" + key.line(text, promise.accepted)).encode("utf-8")


def verify_promise(note: bytes, key: VerifierKey) -> Promise:
    """Give the promise that ``key`` signed, or raise ``InvalidSignature`` or ``Malformed``."""
    return Promise.parse(_signed_text(note, key))


def verify_batch_promise(note: bytes, key: VerifierKey, leaf_hashes: Sequence[bytes]) -> BatchPromise:
    """Give the promise that ``key`` signed of just these entries, in the order in which they were accepted.

    Raises ``InvalidSignature``, ``Malformed``, or ``InvalidProof`` where it speaks of others.
    """
    found = BatchPromise.parse(_signed_text(note, key))
    if (found.count, found.root) != (len(leaf_hashes), root_of(leaf_hashes)):
        raise InvalidProof(f"the promise is of {found.count} entries that are not these {len(leaf_hashes)}")
    return found


def _signed_text(note: bytes, key: VerifierKey) -> str:
    parsed = Note.parse(note)
    parsed.verify([key])
    return parsed.text
