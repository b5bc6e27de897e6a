"""Reserved records: the entries that only the log itself makes (design section 3).

A JSON object with the member ``type`` and without ``payload``. The state entry commits the status map:
it is the last entry before each signed checkpoint, and its ``size`` is its own index. The other reserved
records are orders (``quotary.statements.order``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quotary.canonical import Fields, canonical, parse_canonical
from quotary.errors import Malformed, Rejected
from quotary.statements.envelope import MAX_ENTRY

MAP_FUNCTION = "F1"
END_TYPES = ("freeze", "shard-closed")
"""The orders after which a log takes no entries any more (``quotary.statements.order``)."""

MAX_TS = 253_370_764_800
"""9999-01-01T00:00:00Z, so that every deadline computed from log time can still be written."""


@dataclass(frozen=True, slots=True)
class StateEntry:
    """The state of the log after the entries before this one.

    index: of this very entry, so the checkpoint that it closes has size ``index + 1``
    maps:  name of the map function to the map's root (32 bytes)
    ts:    log time in seconds, for every entry since the state entry before
    prev:  index of the state entry before; absent in the first
    end:   type of the order that stands right before this entry and ends the log; nothing follows
    """

    index: int
    maps: Mapping[str, bytes]
    ts: int
    prev: int | None
    end: str | None = None

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
            fields.optional("end", lambda name: fields.choice(name, *END_TYPES)),
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
        if self.end is not None:
            document["end"] = self.end
        return canonical(document)

    def check_follows(self, before: "StateEntry | None") -> None:
        """Refuse a state entry that does not continue the one before (None: it is the log's first)."""
        wanted = None if before is None else before.index
        if self.prev != wanted:
            raise Rejected("state", f"prev {self.prev}", f"prev {wanted}")
        if before is not None and before.end is not None:
            raise Rejected("state", f"state entry {self.index}", f"nothing after the {before.end}")
        if before is not None and self.ts < before.ts:
            raise Rejected("state", f"log time {self.ts}", f"at least {before.ts}")


def reserved_type(entry: bytes) -> object | None:
    """Give the member ``type`` of a reserved record, whatever it is; None for every other entry."""
    if entry.startswith(b'{"payload"'):
        return None  # members are sorted, so this is how every envelope begins
    try:
        value = parse_canonical(entry, MAX_ENTRY)
    except Malformed:
        return None
    return value.get("type") if isinstance(value, dict) and "payload" not in value else None


def is_reserved(entry: bytes) -> bool:
    """Say whether an entry has the form of a reserved record, whatever its type: nobody may submit it."""
    return reserved_type(entry) is not None


def state_of(entry: bytes) -> StateEntry | None:
    """Read a state entry; None for statements and for the log's other reserved records."""
    return StateEntry.parse(entry) if reserved_type(entry) == "state" else None


def _reserved(entry: bytes, kind: str) -> Fields:
    fields = Fields(parse_canonical(entry, MAX_ENTRY), f"{kind} record")
    fields.choice("type", kind)
    fields.integer("v", 1, 1)
    return fields
