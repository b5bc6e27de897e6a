"""Where a worker's threads bring entries and ask for promises; who comes at the same time is served together.

A worker believes nobody's entry and enqueues none: a judge does, a process that no network reaches.
"""

from collections.abc import Sequence
from typing import Protocol

from quotary.errors import QuotaryError
from registry.admission import Accepted, Answer, Logged
from registry.group import Group
from registry.promise import MAX_PROMISES
from registry.signing import SignerClient

MAX_GROUP = 256


class Judge(Protocol):
    """Whoever admits: a process of its own, or ``Admission`` in this one."""

    def submit_all(self, entries: Sequence[bytes]) -> list[Answer]: ...

    def check(self) -> None: ...


class Desk:
    """One per worker process."""

    def __init__(self, judge: Judge, signer: SignerClient, promise_seconds: int) -> None:
        self._judge = judge
        self._signer = signer
        self._promise_seconds = promise_seconds
        self._group = Group(judge.submit_all, MAX_GROUP)
        self._promising = Group(self.promises, MAX_PROMISES)

    def submit(self, entry: bytes) -> Logged | Accepted:
        """Hand on one entry, together with what other threads bring."""
        found = self._group.do(entry)
        if isinstance(found, QuotaryError):
            raise found
        return found

    def submit_all(self, entries: Sequence[bytes]) -> list[Answer]:
        """Hand on entries in their order."""
        return self._judge.submit_all(entries)

    def check(self) -> None:
        """Raise the error for which no entry is taken."""
        self._judge.check()

    def promise(self, accepted: Accepted) -> bytes:
        """Give one, asked for together with what other threads ask."""
        return self._promising.do(accepted)

    def promise_all(self, accepted: Sequence[Accepted]) -> bytes:
        """Give one for all entries of a batch that were accepted, in their order."""
        at = accepted[0].at
        leaf_hashes = [item.leaf_hash for item in accepted]
        return self._signer.batch_promise(leaf_hashes, at, at + self._promise_seconds)

    def promises(self, accepted: Sequence[Accepted]) -> list[bytes]:
        """Give the log's signed word for each that it will be published in time."""
        wanted = [(item.leaf_hash, item.at, item.at + self._promise_seconds) for item in accepted]
        return self._signer.promises(wanted)
