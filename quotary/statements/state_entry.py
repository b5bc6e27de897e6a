"""Reserved records: the entries that only the log itself makes (design section 3).

A JSON object with the member ``type`` and without ``payload``. The state entry commits the status map:
it is the last entry before each signed checkpoint, and its ``size`` is its own index.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quotary.canonical import Fields, canonical, parse_canonical
from quotary.errors import Malformed, Rejected
from quotary.statements.envelope import MAX_ENTRY
from quotary.statements.predicates import strings

RESERVED_TYPES = ("freeze", "key-rotation", "shard-closed", "state")
MAP_FUNCTION = "F1"

MAX_TS = 253_370_764_800
"""9999-01-01T00:00:00Z, so that every deadline computed from log time can still be written."""


@dataclass(frozen=True, slots=True)
class StateEntry:
    """The state of the log after the entries before this one.

    index: of this very entry, so the checkpoint that it closes has size ``index + 1``
    maps:  name of the map function to the map's root (32 bytes)
    ts:    log time in seconds, for every entry since the state entry before
    prev:  index of the state entry before; absent in the first
    """

    index: int
    maps: Mapping[str, bytes]
    ts: int
    prev: int | None

    @classmethod
    def parse(cls, entry: bytes) -> "StateEntry":
        """Read a state entry."""
        fields = _reserved(entry, "state")
        roots = fields.mapping("maps", 8)
        names = Fields(roots, "maps")
        found = cls(
            fields.integer("size"),
            {name: names.hexbytes(name, 32) for name in roots},
            fields.integer("ts", 0, MAX_TS),
            fields.optional("prev", fields.integer),
        )
        fields.done()
        if found.prev is not None and found.prev >= found.index:
            raise Malformed(f"state entry {found.index} names {found.prev} as the one before")
        return found

    def encode(self) -> bytes:
        """Write the entry."""
        document: dict[str, object] = {
            "type": "state",
            "v": 1,
            "size": self.index,
            "maps": {name: root.hex() for name, root in self.maps.items()},
            "ts": self.ts,
        }
        if self.prev is not None:
            document["prev"] = self.prev
        return canonical(document)

    def check_follows(self, before: "StateEntry | None") -> None:
        """Refuse a state entry that does not continue the one before (None: it is the log's first)."""
        wanted = None if before is None else before.index
        if self.prev != wanted:
            raise Rejected("state", f"prev {self.prev}", f"prev {wanted}")
        if before is not None and self.ts < before.ts:
            raise Rejected("state", f"log time {self.ts}", f"at least {before.ts}")


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The log's keys change: vkeys that sign from now on, and those that will stop."""

    ts: int
    add: tuple[str, ...]
    remove: tuple[str, ...]

    @classmethod
    def parse(cls, entry: bytes) -> "KeyRotation":
        """Read a key rotation."""
        fields = _reserved(entry, "key-rotation")
        found = cls(
            fields.integer("ts", 0, MAX_TS),
            strings(fields, "add", 16, length=4096),
            strings(fields, "remove", 16, length=4096),
        )
        fields.done()
        return found

    def encode(self) -> bytes:
        """Write the entry."""
        document = {"type": "key-rotation", "v": 1, "ts": self.ts}
        return canonical({**document, "add": sorted(self.add), "remove": sorted(self.remove)})


@dataclass(frozen=True, slots=True)
class Freeze:
    """The log stops taking entries for a while, and says why."""

    ts: int
    reason: str

    @classmethod
    def parse(cls, entry: bytes) -> "Freeze":
        """Read a freeze."""
        fields = _reserved(entry, "freeze")
        found = cls(fields.integer("ts", 0, MAX_TS), fields.text("reason", 512))
        fields.done()
        return found

    def encode(self) -> bytes:
        """Write the entry."""
        return canonical({"type": "freeze", "v": 1, "ts": self.ts, "reason": self.reason})


@dataclass(frozen=True, slots=True)
class ShardClosed:
    """The log ends; its successor has this origin and these vkeys."""

    ts: int
    origin: str
    vkeys: tuple[str, ...]

    @classmethod
    def parse(cls, entry: bytes) -> "ShardClosed":
        """Read the end of a shard."""
        fields = _reserved(entry, "shard-closed")
        successor = fields.fields("successor")
        vkeys = strings(successor, "vkeys", 16, low=1, length=4096)
        found = cls(fields.integer("ts", 0, MAX_TS), successor.name("origin"), vkeys)
        successor.done()
        fields.done()
        return found

    def encode(self) -> bytes:
        """Write the entry."""
        successor = {"origin": self.origin, "vkeys": sorted(self.vkeys)}
        return canonical({"type": "shard-closed", "v": 1, "ts": self.ts, "successor": successor})


def is_reserved(entry: bytes) -> bool:
    """Say whether an entry has the form of a reserved record, whatever its type: nobody may submit it."""
    if entry.startswith(b'{"payload"'):
        return False  # members are sorted, so this is how every envelope begins
    try:
        value = parse_canonical(entry, MAX_ENTRY)
    except Malformed:
        return False
    return isinstance(value, dict) and "type" in value and "payload" not in value


def state_of(entry: bytes) -> StateEntry | None:
    """Read a state entry; None for statements and for the log's other reserved records."""
    if not is_reserved(entry) or b'"type":"state"' not in entry:
        return None
    return StateEntry.parse(entry)


def _reserved(entry: bytes, kind: str) -> Fields:
    fields = Fields(parse_canonical(entry, MAX_ENTRY), f"{kind} record")
    fields.choice("type", kind)
    fields.integer("v", 1, 1)
    return fields
