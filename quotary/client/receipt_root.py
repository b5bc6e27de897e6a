"""By when a receipt was there: its place under a root of receipts, and that root's in a log
(docs/formats/receipt.md, "Roots").

A root is a Merkle root (RFC 6962) over public copies of receipts in the order of their sequence. It is
logged as an item of a ``receipt-root`` statement, which is the service's own word: what a verified entry
proves is that the receipt was there before the checkpoint's time; who made it, its own signature says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quotary.canonical import Fields, b64, canonical, parse_canonical, unb64
from quotary.client.receipt import Receipt
from quotary.errors import Malformed, Rejected
from quotary.statements.notice import MAX_ITEMS, Notice
from quotary.statements.opened import open_entry
from quotary.tlog.merkle import leaf_hash, verify_inclusion

KIND = "receipt-root"
MAX_ANSWER = 1 << 18
_MAX_PATH = 32


@dataclass(frozen=True, slots=True)
class ReceiptRoot:
    """The root (32 bytes) over ``size`` receipts from the sequence ``first`` on."""

    first: int
    size: int
    root: bytes

    @property
    def item(self) -> dict[str, object]:
        """Give the item of a statement that logs it."""
        return {"name": f"receipts/{self.first}", "sha256": self.root.hex(), "size": self.size}

    def document(self) -> dict[str, object]:
        return {"first": self.first, "size": self.size, "root": self.root.hex()}

    @classmethod
    def read(cls, fields: Fields) -> "ReceiptRoot":
        return cls(fields.integer("first"), fields.integer("size", 1), fields.hexbytes("root", 32))


@dataclass(frozen=True, slots=True)
class ReceiptPlace:
    """Where a receipt stands under a root. index: from 0; path: 32-byte hashes from leaf to root."""

    root: ReceiptRoot
    index: int
    path: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> "ReceiptPlace":
        fields = Fields(parse_canonical(data, MAX_ANSWER), "receipt place")
        fields.integer("v", 1, 1)
        path = tuple(_hash(item) for item in fields.items("path", _MAX_PATH))
        found = cls(ReceiptRoot.read(fields), fields.integer("index"), path)
        fields.done()
        return found

    def encode(self) -> bytes:
        path = [b64(item) for item in self.path]
        return canonical({"v": 1, **self.root.document(), "index": self.index, "path": path})


def encode_roots(roots: Sequence[ReceiptRoot]) -> bytes:
    """Write what ``GET /v1/receipt-roots`` answers."""
    return canonical({"v": 1, "roots": [root.document() for root in roots]})


def parse_roots(data: bytes) -> tuple[ReceiptRoot, ...]:
    """Read the answer; at most as many roots as fit into one statement."""
    fields = Fields(parse_canonical(data, MAX_ANSWER), "receipt roots")
    fields.integer("v", 1, 1)
    found = []
    for value in fields.items("roots", MAX_ITEMS):
        member = Fields(value, "receipt root")
        found.append(ReceiptRoot.read(member))
        member.done()
    fields.done()
    return tuple(found)


def verify_place(receipt: Receipt, place: ReceiptPlace) -> None:
    """Require that this receipt stands under this root; either copy of it will do."""
    wanted = receipt.sequence - place.root.first
    if place.index != wanted:
        raise Rejected("receipt root", f"index {place.index}", f"{wanted}, of the receipt's sequence")
    leaf = leaf_hash(replace(receipt, salt=None).encode())
    verify_inclusion(place.index, place.root.size, leaf, place.path, place.root.root)


def verify_logged(place: ReceiptPlace, entry: bytes, service: str) -> None:
    """Require that this entry is a statement of the service that names this root; it may be in no log."""
    statement = open_entry(entry).statement
    if statement is None or not isinstance(statement.predicate, Notice) or statement.kind != KIND:
        raise Rejected("receipt root", "another entry", f"a statement {KIND}")
    if statement.predicate.header.service != service:
        raise Rejected("receipt root", f"a statement of {statement.predicate.header.service}", service)
    wanted = place.root.item
    named = [{"name": i.name, "sha256": i.sha256.hex(), "size": i.size} for i in statement.predicate.items]
    if wanted not in named:
        raise Rejected("receipt root", f"{len(named)} other roots", f"{wanted['sha256']} of {wanted['name']}")


def _hash(value: object) -> bytes:
    if not isinstance(value, str):
        raise Malformed("a receipt's path holds something that is not a string")
    return unb64(value, length=32)
