"""One quote for many clients: whoever asks while a quote is being made is answered by the next one.

Hardware gives one quote at a time, and some of it takes a second. So nonces gather while it works, the next
quote is over the root of their Merkle tree (RFC 6962, one nonce a leaf), and each client gets the path of its
own. A client that is alone waits for nobody; where many came for the last quote, the next one waits 50 ms for
those whom it let go.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from quotary.attestation.document import NonceProof
from quotary.tlog.merkle import leaf_hash, path_in, root_of

GATHER_SECONDS = 0.05
MANY = 8

About = TypeVar("About")
Made = TypeVar("Made")


@dataclass(slots=True)
class _Batch(Generic[About, Made]):
    """about: what the newest of its clients asked about; leaves: of their nonces; made: the answer to all."""

    about: About
    leaves: list[bytes] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    made: Made | None = None
    error: Exception | None = None


class NonceBatches(Generic[About, Made]):
    """Gathers nonces; ``make`` asks the hardware once for a batch, with the nonces' root."""

    def __init__(self, make: Callable[[About, bytes], Made]) -> None:
        self._make = make
        self._lock, self._one_at_a_time = threading.Lock(), threading.Lock()
        self._open: _Batch[About, Made] | None = None
        self._last = 0
        self._never = threading.Event()

    def ask(self, about: About, nonce: bytes) -> tuple[Made, NonceProof]:
        """Give the answer of the batch that takes this nonce, and the nonce's place in it.

        What ``make`` raises reaches every client of the batch, and nobody of the next.
        """
        with self._lock:
            batch = self._open
            first = batch is None
            if batch is None:
                batch = self._open = _Batch(about)
            place, batch.about = len(batch.leaves), about
            batch.leaves.append(leaf_hash(nonce))
        if first:
            self._answer(batch)
        batch.done.wait()
        if batch.error is not None:
            raise batch.error
        assert batch.made is not None
        return batch.made, NonceProof(place, len(batch.leaves), path_in(batch.leaves, place))

    def _answer(self, batch: _Batch[About, Made]) -> None:
        with self._one_at_a_time:
            if self._last >= MANY:
                self._never.wait(GATHER_SECONDS)
            # Closed only now: everybody who came while the hardware was busy is in it.
            with self._lock:
                self._open, self._last = None, len(batch.leaves)
            try:
                batch.made = self._make(batch.about, root_of(batch.leaves))
            except Exception as error:  # noqa: BLE001  # raised again by each client that waits for it
                batch.error = error
            finally:
                batch.done.set()
