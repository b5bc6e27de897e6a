"""How much one address and one builder may send: token buckets in memory.

The address pays each worker for every entry that it sends, before anything is read; the builder pays the
judge, by the keys that signed, for what was admitted. A revocation is never refused for a builder's quota.
"""

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from registry.errors import Busy

MAX_KEYS = 16_384
NETWORK_BITS = 64


class Quota:
    """One bucket a key: ``burst`` at once, ``per_second`` in the long run.

    The least recently used of more than 16,384 keys is forgotten, and starts full again.
    """

    def __init__(
        self, what: str, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, keys: Iterable[str], count: int = 1) -> None:
        """Take ``count`` from each bucket, or from none and raise ``Busy`` with the seconds to wait."""
        names = sorted(set(keys))
        with self._lock:
            now = self._clock()
            levels = {name: self._level(name, now) for name in names}
            lacking = max((count - level for level in levels.values()), default=0.0)
            if lacking > 0:
                wait = max(1, math.ceil(lacking / self._per_second))
                rate = f"{self._burst} entries at once, {self._per_second:g} a second"
                raise Busy(f"this {self._what} may send {rate}", wait)
            for name, level in levels.items():
                self._levels[name] = (level - count, now)
                self._levels.move_to_end(name)
            while len(self._levels) > MAX_KEYS:
                self._levels.popitem(last=False)

    def _level(self, name: str, now: float) -> float:
        level, at = self._levels.get(name, (float(self._burst), now))
        return min(float(self._burst), level + (now - at) * self._per_second)


def sender(peer: str | None, forwarded: str | None) -> str:
    """Name the network that a request came from.

    peer:      the other end of the connection
    forwarded: ``X-Real-IP``, believed only from this machine, where the front server runs
    """
    address = _address(peer)
    if address is None or address.is_loopback:
        address = _address(forwarded) or address
    if isinstance(address, ipaddress.IPv6Address):
        # Whoever has one IPv6 address has the 2^64 beside it.
        return str(ipaddress.ip_network((address, NETWORK_BITS), strict=False))
    return str(address) if address else "unknown"


def is_loopback(text: str) -> bool:
    """Say whether an address is one of this machine alone; what is no address is not."""
    address = _address(text)
    return address is not None and address.is_loopback


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
