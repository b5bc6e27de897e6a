"""Promises: the log's signed word that an entry will be published by a deadline (docs/formats/api.md).

A promise is a signed note under a key of its own, named ``<origin>/promise``. A verifier that holds one
past its deadline and a checkpoint later than the deadline without the entry has evidence against the log.
"""

from dataclasses import dataclass

from quotary.canonical import b64, unb64
from quotary.errors import Malformed
from quotary.tlog.note import Note, SigningKey, VerifierKey

CONTEXT = "quotary.dev/promise/v1"
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


def sign_promise(promise: Promise, key: SigningKey) -> bytes:
    """Make the signed note."""
    text = str(promise)
    return (text + "\n" + key.line(text, promise.accepted)).encode("utf-8")


def verify_promise(note: bytes, key: VerifierKey) -> Promise:
    """Give the promise that ``key`` signed, or raise ``InvalidSignature`` or ``Malformed``."""
    parsed = Note.parse(note)
    parsed.verify([key])
    return Promise.parse(parsed.text)
