"""Put an order of the roots into a running log, and do what follows from it (``registry order log``)."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from quotary.errors import CannotTell, Refused
from quotary.statements.order import KeyRotation, Order
from quotary.tlog.merkle import leaf_hash
from registry import rotation
from registry.config import Config
from registry.orders import check
from registry.store import Store, open_store

WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Obeyed:
    """An order that is published at ``index``."""

    index: int
    order: Order


def obey(config: Config, entry: bytes, now: Callable[[], datetime]) -> Obeyed:
    """Log an order, wait until it is published, and adopt the keys that it names.

    Repeating is safe: an order that is logged already is only followed. Raises ``Rejected`` where the roots
    in force did not give it, ``CannotTell`` where nothing publishes it in time.
    """
    store = open_store(config.database_url)
    try:
        order, digest = Order.parse(entry), leaf_hash(entry)
        if store.read.find(digest) is None:
            at = int(now().timestamp())
            check(store.read, config.origin, entry, at)
            if not store.read.waiting_among([digest]):
                store.write.enqueue([(digest, entry)], at)
        index = _await(store, digest)
        if isinstance(order.content, KeyRotation):
            rotation.adopt(config, order, store.read)
        return Obeyed(index, order)
    finally:
        store.close()


def _await(store: Store, digest: bytes) -> int:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        index, waits = store.read.find(digest), store.read.waiting_among([digest])
        if index is not None and index < store.read.published_size():
            return index
        if index is None and not waits and store.read.find(digest) is None:
            raise Refused("order", "dropped by the sequencer", "an order that it logs")
        if time.monotonic() > deadline:
            again = "the same command, once the log publishes"
            raise CannotTell(f"not published within {WAIT_SECONDS:g} s", next_command=again)
        threading.Event().wait(LOOK_SECONDS)
