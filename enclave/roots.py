"""Merkle roots over receipts: one a minute, so that a log can say by when each of them was there.

Receipts are leaves in the order of their sequence. A tree is closed a minute after its first receipt, or when
it has as many as it may; a proof is given only for a closed one. Whoever operates the service logs the roots
(``quotary receipt roots``); nothing about serving rests on that.
"""

from collections import deque
from dataclasses import dataclass, field

from quotary.client.receipt_root import ReceiptPlace, ReceiptRoot
from quotary.tlog.merkle import leaf_hash, path_in, root_of

MINUTE = 60
MOST = 4096
KEPT = 256


@dataclass(slots=True)
class _Tree:
    first: int
    opened_at: int
    leaves: list[bytes] = field(default_factory=list)

    def due(self, now: int) -> bool:
        return now >= self.opened_at + MINUTE or len(self.leaves) >= MOST

    def root(self) -> ReceiptRoot:
        return ReceiptRoot(self.first, len(self.leaves), root_of(self.leaves))


class ReceiptRoots:
    """The trees of one boot, the newest ones; the caller lets one thread in at a time."""

    def __init__(self) -> None:
        self._open: _Tree | None = None
        self._closed: deque[_Tree] = deque(maxlen=KEPT)

    def add(self, sequence: int, public: bytes, now: int) -> None:
        """Take the public copy of a receipt."""
        self._close(now)
        if self._open is None:
            self._open = _Tree(sequence, now)
        self._open.leaves.append(leaf_hash(public))

    def closed(self, now: int) -> tuple[ReceiptRoot, ...]:
        """Give the roots of the closed trees, oldest first."""
        self._close(now)
        return tuple(tree.root() for tree in self._closed)

    def place(self, sequence: int, now: int) -> ReceiptPlace | None:
        """Prove where a receipt stands, once its tree is closed and as long as it is kept."""
        self._close(now)
        for tree in self._closed:
            index = sequence - tree.first
            if 0 <= index < len(tree.leaves):
                return ReceiptPlace(tree.root(), index, path_in(tree.leaves, index))
        return None

    def _close(self, now: int) -> None:
        if self._open is not None and self._open.due(now):
            self._closed.append(self._open)
            self._open = None
