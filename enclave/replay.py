"""Which sealed heads were admitted: a ciphertext opens once (docs/formats/sealed.md, "Replay").

Pure but for its memory; the caller passes the time. A keyset with other keys needs no memory of this one's
heads, so replicas share nothing.
"""

import hashlib
import threading

from quotary.errors import Refused

WINDOW_SECONDS = 300


class Replayed(Refused):
    """The same sealed head was admitted before."""


class OutsideWindow(Refused):
    """The client's and the enclave's clocks differ by more than the replay window."""


class ReplaySet:
    """The heads admitted in the last ten minutes, 16 bytes each; safe to use from many threads.

    When ``capacity`` is reached it refuses, because forgetting would admit a replay. A keyset with other
    keys needs no memory of this one's heads.
    """

    __slots__ = ("_buckets", "_capacity", "_lock")

    def __init__(self, capacity: int = 1 << 20) -> None:
        self._buckets: dict[int, set[bytes]] = {}
        self._capacity = capacity
        self._lock = threading.Lock()

    def admit(self, enc: bytes, at: int, now: int) -> None:
        """Remember a head or raise ``OutsideWindow`` or ``Replayed``; ``at`` is the client's time, ``now``
        ours.
        """
        if abs(now - at) > WINDOW_SECONDS:
            raise OutsideWindow("sealed time", f"{at - now:+d} s", f"within {WINDOW_SECONDS} s of this clock")
        mark = hashlib.sha256(enc).digest()[:16]
        with self._lock:
            # A head is acceptable while |now - at| <= window, so a bucket of its client time is needed that
            # long.
            for old in [b for b in self._buckets if (b + 1) * WINDOW_SECONDS < now - WINDOW_SECONDS]:
                del self._buckets[old]
            bucket = self._buckets.setdefault(at // WINDOW_SECONDS, set())
            if mark in bucket:
                raise Replayed("replay", "a sealed head that was admitted before", "a new one")
            if sum(map(len, self._buckets.values())) >= self._capacity:
                raise Refused(
                    "replay", "a full replay set", f"fewer than {self._capacity} requests in ten minutes"
                )
            bucket.add(mark)
