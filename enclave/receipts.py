"""Issue receipts: one per answer, also for the answer that broke off, each naming the one before it.

A keeper holds the sequence of one boot and the public copies of the newest receipts. The salt goes only
into the client's copy. Signing waits for nothing and takes well under a millisecond.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from enclave.roots import ReceiptRoots
from quotary.client.receipt import (
    SALT_LENGTH,
    Channel,
    Commitments,
    Origin,
    Receipt,
    Served,
    Signature,
    commitment,
    token_bytes,
)
from quotary.client.receipt_root import ReceiptPlace, ReceiptRoot

KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Answered:
    """What happened, as the API saw it. request, response: inner bodies; ids: tokens; parameters:
    effective.
    """

    served: Served
    origin: Origin
    request: bytes
    response: "ResponseHash"
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    parameters: Mapping[str, int | str]
    channel: Channel | None


class ResponseHash:
    """Commits to a response while it is sent, so that no answer has to be kept for its receipt."""

    __slots__ = ("_hash", "salt")

    def __init__(self, salt: bytes | None = None) -> None:
        self.salt = os.urandom(SALT_LENGTH) if salt is None else salt
        # The same bytes as ``commitment("response", salt, all of it)``; a test holds them together.
        self._hash = hashlib.sha256(b"quotary-receipt/v1\nresponse\n" + self.salt)

    def update(self, data: bytes) -> bytes:
        """Take bytes that are being sent, and return them."""
        self._hash.update(data)
        return data

    def digest(self) -> bytes:
        return self._hash.digest()


class ReceiptBook:
    """The receipts of one boot."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._previous: bytes | None = None
        self._kept = kept
        self._public: OrderedDict[str, bytes] = OrderedDict()
        self._others: OrderedDict[str, bytes] = OrderedDict()
        self._roots = ReceiptRoots()

    def issue(self, answered: Answered, sign: Callable[[bytes], Signature]) -> Receipt:
        """Sign and remember; the receipt that is returned is the client's copy, with the salt."""
        salt = answered.response.salt
        with self._lock:
            draft = Receipt(
                sequence=self._sequence,
                served=answered.served,
                commitments=_commitments(answered, salt),
                origin=answered.origin,
                parameters=answered.parameters,
                channel=answered.channel,
                previous=self._previous,
            )
            receipt = replace(draft, signatures=(sign(draft.signed_bytes()),))
            self._sequence += 1
            self._previous = receipt.digest()
            public = receipt.encode()
            self._public[answered.served.receipt_id] = public
            self._roots.add(receipt.sequence, public, answered.served.end)
            while len(self._public) > self._kept:
                self._public.popitem(last=False)
        return replace(receipt, salt=salt)

    def keep(self, other: Receipt) -> None:
        """Keep the public copy of another enclave's receipt, which one of ours names."""
        with self._lock:
            self._others[other.served.receipt_id] = replace(other, salt=None).encode()
            while len(self._others) > self._kept:
                self._others.popitem(last=False)

    def find(self, receipt_id: str) -> bytes | None:
        """Give the public copy: without salt, so nobody can test a guess at the prompt against it."""
        with self._lock:
            return self._public.get(receipt_id) or self._others.get(receipt_id)

    def place(self, receipt_id: str, now: int) -> ReceiptPlace | None:
        """Prove where a kept receipt stands, once the root over it is closed."""
        with self._lock:
            public = self._public.get(receipt_id)
            return None if public is None else self._roots.place(Receipt.parse(public).sequence, now)

    def roots(self, now: int) -> tuple[ReceiptRoot, ...]:
        """Give the newest closed roots over receipts, oldest first."""
        with self._lock:
            return self._roots.closed(now)


def _commitments(answered: Answered, salt: bytes) -> Commitments:
    return Commitments(
        commitment("request", salt, answered.request),
        answered.response.digest(),
        commitment("prompt_ids", salt, token_bytes(answered.prompt_ids)),
        commitment("output_ids", salt, token_bytes(answered.output_ids)),
        len(answered.prompt_ids),
        len(answered.output_ids),
    )
