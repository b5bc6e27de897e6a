"""Callers that wait until their entry is published: one thread asks the database for all of them."""

import logging
import threading
from dataclasses import dataclass, field

from quotary.errors import CannotTell
from registry.quota import is_loopback
from registry.store import Reader

log = logging.getLogger("registry")

STEP_SECONDS = 0.02


@dataclass(eq=False, slots=True)
class _Caller:
    """seen: the published size that did not have the entry yet."""

    leaf_hash: bytes
    who: str
    seen: int = 0
    index: int | None = None
    woken: threading.Event = field(default_factory=threading.Event)


class Waiters:
    """At most ``limit`` callers of one process, so that whoever does not wait finds a free thread.

    Half of the places are what one address may have, unless it is this machine's own.
    """

    def __init__(self, read: Reader, limit: int) -> None:
        self._read = read
        self._limit = limit
        self._lock = threading.Lock()
        self._callers: set[_Caller] = set()
        self._watched = False
        self._pause = threading.Event()

    def wait(self, leaf_hash: bytes, seconds: float, who: str) -> int | None:
        """Give an entry's index as soon as it is published; None after ``seconds``, or if too many wait.

        who: the address that asks (``quota.sender``)
        """
        caller = _Caller(leaf_hash, who)
        with self._lock:
            if not self._has_place(who):
                return None
            self._callers.add(caller)
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, daemon=True).start()
        caller.woken.wait(seconds)
        with self._lock:
            self._callers.discard(caller)
        return caller.index

    def _has_place(self, who: str) -> bool:
        most = self._limit if is_loopback(who) else max(1, self._limit // 2)
        return len(self._callers) < self._limit and sum(each.who == who for each in self._callers) < most

    def _watch(self) -> None:
        """Look until nobody waits; the next caller starts another thread."""
        while True:
            with self._lock:
                callers = [caller for caller in self._callers if not caller.woken.is_set()]
                self._watched = bool(self._callers)
                if not self._watched:
                    return
            try:
                self._look(callers)
            except CannotTell as error:
                log.warning("waiters.unavailable", extra={"why": str(error)})
            self._pause.wait(STEP_SECONDS)

    def _look(self, callers: list[_Caller]) -> None:
        size = self._read.published_size()
        asking = [caller for caller in callers if caller.seen < size]
        found = self._read.find_all([caller.leaf_hash for caller in asking])
        for caller in asking:
            caller.seen, index = size, found.get(caller.leaf_hash)
            if index is not None and index < size:
                caller.index = index
                caller.woken.set()
