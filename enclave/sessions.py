"""The sessions of the sealed channel that are open now (docs/formats/sealed.md, "Sessions").

A session belongs to the keyset under which it was opened, and ends with it, or when it was not used for ten
minutes, or when more sessions are open than are kept and it is the one unused for longest.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from quotary.client.ratchet import ID_LENGTH, Offer, Opening, SessionEnded, SessionServer, session_name
from quotary.client.sealed import OpenedRequest

IDLE_SECONDS = 600
KEPT = 4096


@dataclass(slots=True)
class _Open:
    """key_id: of the channel key of its keyset; used_at: seconds since 1970."""

    server: SessionServer
    key_id: bytes
    used_at: int
    lock: threading.Lock = field(default_factory=threading.Lock)


class SessionBook:
    """The open sessions of one process; in memory only."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, _Open] = OrderedDict()
        self._kept = kept

    def offer(self, opening: Opening, key_id: bytes, now: int) -> Offer:
        """Open a session for the sender of ``opening``, under the keyset of this channel key."""
        server = SessionServer(opening, os.urandom(ID_LENGTH), IDLE_SECONDS)
        with self._lock:
            self._forget(now)
            self._open[server.offer.name] = _Open(server, key_id, now)
            while len(self._open) > self._kept:
                self._open.popitem(last=False)
        return server.offer

    def open(self, wire: bytes, now: int) -> tuple[OpenedRequest, bytes]:
        """Open a request of a session; gives it and the key id of the session's keyset."""
        name = session_name(wire)
        with self._lock:
            self._forget(now)
            found = self._open.get(name)
        if found is None:
            raise SessionEnded("session", name.hex(), "one that is open here")
        with found.lock:
            opened = found.server.open(wire)
        with self._lock:
            found.used_at = now
            if name in self._open:
                self._open.move_to_end(name)
        return opened, found.key_id

    def destroy(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._open.clear()

    def _forget(self, now: int) -> None:
        # In the order of their last use, so the first one that is young enough ends the walk.
        while self._open:
            name, oldest = next(iter(self._open.items()))
            if now - oldest.used_at <= IDLE_SECONDS:
                return
            del self._open[name]
