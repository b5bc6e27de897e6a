"""The sequencer: the one process that appends, has the log signed, and publishes (design section 3).

Each round: integrate what waits and close the interval with a state entry (one transaction, moved by
compare-and-swap), have the signer sign the committed head, show it to the witnesses, and publish it once
their quorum has cosigned. An error around a commit leaves open whether it landed, so everything is read
again. An order of the log's roots gets an interval of its own; after one that ends the log nothing grows.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from quotary.errors import CannotTell, Malformed, Rejected
from quotary.tlog.tiles import consistency_path, root_at
from registry import orders
from registry.batch import Intervals
from registry.errors import ClockRefused, HeadMoved, RolledBack, SignerRefused
from registry.reread import check_committed, check_waiting
from registry.seal import Seal
from registry.signing import RememberedHead, SignerClient
from registry.store import Batch, Head, Signed, Store, Waiting
from registry.tree import StoredTiles
from registry.witnesses import NEXT

log = logging.getLogger("registry")

MAX_BATCH = 4096
MAX_BATCHES = 8
MAX_BEHIND_SECONDS = 60


class Sequencer:
    """Appends and has signed; publishing is ``registry.publisher``'s.

    What it knows between rounds is a copy of the database; ``load`` reads it again after every error.
    """

    def __init__(
        self,
        store: Store,
        origin: str,
        signer: SignerClient,
        now: Callable[[], datetime],
        seal: Seal | None = None,
    ) -> None:
        self._store = store
        self._origin = origin
        self._intervals = Intervals(origin, store.read, seal)
        self._signer = signer
        self._now = now
        self._tiles = StoredTiles(store.read)
        self._head = self._stored_head()
        self._known_end: tuple[Head, str | None] | None = None

    def take_over(self) -> None:
        """Fence off any sequencer before this one."""
        self._head = self._store.write.take_over(self._stored_head())
        self.load()

    def load(self) -> None:
        """Read the head again; another epoch than ours means that we were replaced."""
        self._head = self._check_epoch()

    def check_signer(self) -> RememberedHead:
        """Compare the signer's memory with the database and give it, or raise ``RolledBack``.

        Raises ``HeadMoved`` where another sequencer took over: the signer may be ahead of what we know.
        """
        signed = self._store.read.signed()
        remembered, head = self._signer.head(), self._head
        self._check_epoch()
        if signed and remembered.size < signed.size:
            raise RolledBack(
                "size at the signer", str(remembered.size), f"at least {signed.size}", next_command=NEXT
            )
        if remembered.size > head.size:
            raise RolledBack(
                "size at the signer", str(remembered.size), f"at most {head.size}", next_command=NEXT
            )
        if remembered.size and root_at(remembered.size, self._tiles) != remembered.root:
            raise RolledBack(
                f"root of size {remembered.size} at the signer",
                remembered.root.hex(),
                "ours",
                next_command=NEXT,
            )
        return remembered

    def integrate(self) -> None:
        """Append what waits, each batch with a state entry; an idle log appends nothing."""
        for _ in range(MAX_BATCHES):
            rows = self._fresh(self._store.read.waiting(MAX_BATCH))
            if rows and self._ended():
                self._drop(rows)
                return
            waiting, given = orders.split(rows)
            if waiting or self._head.state_index != self._head.size - 1:
                self._commit(self._intervals.close(self._head, waiting, self._log_time()))
            self._obey(given, drained=not waiting)
            if len(rows) < MAX_BATCH:
                return

    def _obey(self, given: list[Waiting], *, drained: bool) -> None:
        """Log each order in an interval of its own, and drop those that the roots did not give.

        One that ends the log waits until a round found nothing else: what was promised is logged before it.
        """
        for row in given:
            ts = self._log_time()
            try:
                order = orders.check(self._store.read, self._origin, row.data, ts)
            except (Malformed, Rejected) as error:
                log.error("order.refused", extra={"leaf_hash": row.leaf_hash.hex(), "why": str(error)})
                self._store.write.forget([row.id])
                continue
            if order.ends_log and not drained:
                continue
            end = order.kind if order.ends_log else None
            self._commit(self._intervals.close(self._head, [row], ts, end))
            log.warning("order.logged", extra={"kind": order.kind, "index": self._head.size - 2})
            if order.ends_log:
                return

    def _drop(self, rows: list[Waiting]) -> None:
        """Forget what came too late for a log that has ended."""
        log.error("entries.too_late", extra={"leaf_hashes": [row.leaf_hash.hex() for row in rows]})
        self._store.write.forget([row.id for row in rows])

    def sign(self) -> None:
        """Have the committed head signed, with proof that it continues what the signer signed last."""
        head, signed = self._head, self._store.read.signed()
        is_closed = head.size > 0 and head.state_index == head.size - 1
        if not is_closed or (signed and signed.size == head.size):
            return
        check_committed(self._store.read, self._tiles, signed.size if signed else 0, head)
        old = self.check_signer().size
        proof = consistency_path(old, head.size, self._tiles) if 0 < old < head.size else ()
        final = self._ended() is not None
        try:
            note = self._signer.sign(head.size, head.root, proof, final=final)
        except SignerRefused:
            self._check_epoch()
            moved = self._signer.head().size
            if moved != old:  # one that was replaced, and woke up late, had its head signed in between
                raise HeadMoved(f"the signer is at size {moved}, asked to continue {old}") from None
            raise
        self._store.write.add_signed(Signed(head.size, head.root, note), signed.size if signed else 0)

    def _ended(self) -> str | None:
        """Say by which order the log has ended; what a committed head says of that never changes."""
        if self._known_end is None or self._known_end[0] is not self._head:
            self._known_end = self._head, orders.ended(self._store.read, self._head)
        return self._known_end[1]

    def _log_time(self) -> int:
        """Give the clock's seconds, or the log's own where the clock is a little behind it."""
        now, last = int(self._now().timestamp()), self._head.ts
        if now < last - MAX_BEHIND_SECONDS:
            raise ClockRefused(
                "clock", f"{last - now} s behind the log", f"at most {MAX_BEHIND_SECONDS} s behind"
            )
        return max(now, last)

    def _fresh(self, waiting: list[Waiting]) -> list[Waiting]:
        """Drop rows whose entry is logged already: submitted again between the look-up and the insert."""
        check_waiting(waiting)
        logged = self._store.read.find_all([row.leaf_hash for row in waiting])
        if logged:
            self._store.write.forget([row.id for row in waiting if row.leaf_hash in logged])
        return [row for row in waiting if row.leaf_hash not in logged]

    def _commit(self, batch: Batch) -> None:
        self._store.write.integrate(batch)
        self._head = batch.head
        log.info("log.integrated", extra={"size": batch.head.size, "entries": len(batch.entries)})

    def _check_epoch(self) -> Head:
        head = self._stored_head()
        if head.epoch != self._head.epoch:
            raise HeadMoved(f"the head is at epoch {head.epoch}, this sequencer has {self._head.epoch}")
        return head

    def _stored_head(self) -> Head:
        head = self._store.read.head()
        if head is None:
            raise CannotTell("the database holds no log", next_command="quotary registry init")
        return head
