"""Orders: the reserved records by which a log's roots change its keys or end it (docs/formats/orders.md).

The log writes them, and only on the word of its roots: a threshold of the role ``root`` signs inside the
record. F1 never looks at them; whoever audits the log does, with ``check_interval``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary import ed25519
from quotary.canonical import Fields, b64, canonical, parse_canonical, time_text
from quotary.errors import InvalidSignature, Malformed, Rejected
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import MAX_ENTRY, MAX_SIGNATURES, Signature, key_id, raw_public_key
from quotary.statements.predicates import ascending, strings
from quotary.statements.state_entry import END_TYPES, StateEntry, reserved_type
from quotary.tlog.note import COSIGNATURE_ML_DSA_44, ED25519, VerifierKey

CONTEXT = b"quotary-order/v1\n"
ORDER_TYPES = ("freeze", "key-rotation", "shard-closed")
MAX_KEYS = 4
MAX_AHEAD_SECONDS = 300
LIFETIME = timedelta(days=30)
"""An order that was not logged so long after it was issued is void: nobody can bring it out years later."""

_LOG_TYPES = (ED25519, COSIGNATURE_ML_DSA_44)


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The log's keys change.

    add:    vkeys that sign from this entry's checkpoint on
    remove: vkeys that they replace, one for one of the same types
    until:  the removed keys sign beside the new ones until then
    """

    add: tuple[VerifierKey, ...]
    remove: tuple[VerifierKey, ...]
    until: datetime


@dataclass(frozen=True, slots=True)
class Freeze:
    """The log takes no entries any more, and has no successor yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class ShardClosed:
    """The log takes no entries any more; another one goes on.

    origin: of the successor
    vkeys:  of the successor
    """

    reason: str
    origin: str
    vkeys: tuple[VerifierKey, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """An order, parsed; who signed it is not known here.

    log:        origin of the log that it is for
    signatures: by root keys, over ``message``
    """

    log: str
    issued: datetime
    content: KeyRotation | Freeze | ShardClosed
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, entry: bytes) -> "Order":
        """Read an order that somebody signed."""
        return _parse(entry, low=1)

    @classmethod
    def parse_draft(cls, entry: bytes) -> "Order":
        """Read an order on its way from root to root, perhaps without any signature yet."""
        return _parse(entry, low=0)

    @property
    def kind(self) -> str:
        """Give the record's ``type``."""
        return _NAMES[type(self.content)]

    @property
    def ends_log(self) -> bool:
        """Say whether nothing but its state entry follows."""
        return self.kind in END_TYPES

    @property
    def sentence(self) -> str:
        """Say what it orders, for people."""
        found = self.content
        if isinstance(found, KeyRotation):
            until = f"which sign until {time_text(found.until)}"
            return f"the keys {_ids(found.add)} take the place of {_ids(found.remove)}, {until}"
        if isinstance(found, Freeze):
            return f"the log is frozen: {found.reason}"
        return f"the log is closed: {found.reason}; {found.origin} goes on with the keys {_ids(found.vkeys)}"

    @property
    def message(self) -> bytes:
        """Give what the roots sign: a context line and the record without ``signatures``."""
        return CONTEXT + canonical(self._document())

    def encode(self) -> bytes:
        """Write the entry."""
        signatures = [{"keyid": item.keyid, "sig": b64(item.sig)} for item in self.signatures]
        return canonical({**self._document(), "signatures": signatures})

    def signed_by(self, keys: Iterable[Ed25519PrivateKey]) -> "Order":
        """Add a signature by each key."""
        made = {item.keyid: item for item in self.signatures}
        for key in keys:
            name = key_id(raw_public_key(key))
            made[name] = Signature(name, key.sign(self.message))
        return replace(self, signatures=tuple(made[name] for name in sorted(made)))

    def _document(self) -> dict[str, object]:
        common: dict[str, object] = {
            "type": self.kind,
            "v": 1,
            "log": self.log,
            "issued": time_text(self.issued),
        }
        found = self.content
        if isinstance(found, KeyRotation):
            names = {"add": _vkeys(found.add), "remove": _vkeys(found.remove)}
            return {**common, **names, "until": time_text(found.until)}
        if isinstance(found, Freeze):
            return {**common, "reason": found.reason}
        successor = {"origin": found.origin, "vkeys": _vkeys(found.vkeys)}
        return {**common, "reason": found.reason, "successor": successor}


_NAMES = {KeyRotation: "key-rotation", Freeze: "freeze", ShardClosed: "shard-closed"}


def order_of(entry: bytes) -> Order | None:
    """Read an order; None for every other entry. ``Malformed`` for what has an order's type and is none."""
    return Order.parse(entry) if reserved_type(entry) in ORDER_TYPES else None


def check_order(order: Order, origin: str, log: Delegation | None, ts: int) -> None:
    """Return if the roots of ``log``, the delegation in force, gave this order at log time ``ts``.

    1. It is for this log. 2. It is neither from the future nor void. 3. Every signature is by a root, and
    holds. 4. They reach the roots' threshold, and the delegation has not expired.
    """
    if order.log != origin:
        raise Rejected("order", f"an order for {order.log}", f"one for {origin}")
    issued = int(order.issued.timestamp())
    if not issued - MAX_AHEAD_SECONDS <= ts < issued + LIFETIME.total_seconds():
        wanted = f"within {LIFETIME.days} days before log time {ts}"
        raise Rejected("order", f"issued at {time_text(order.issued)}", wanted)
    if log is None:
        raise Rejected("order", "a log without roots", "a genesis that has effect")
    root = log.roles["root"]
    for signature in order.signatures:
        _check_signature(order, signature, root.keys, log)
    if len(order.signatures) < root.threshold:
        said = f"{len(order.signatures)} signatures by roots"
        raise Rejected("order", said, f"{root.threshold} of {len(root.keys)}")
    if ts >= log.expires.timestamp():
        raise Rejected("order", f"roots until {time_text(log.expires)}", f"roots in force at {ts}")


def check_interval(
    origin: str, entries: Iterable[tuple[int, bytes]], state: StateEntry, log: Delegation | None
) -> Order | None:
    """Give the order that an interval consists of; None for an interval of statements.

    An order is the only entry of its interval, so that it is clear which roots were in force: those before
    it. The state entry says ``end`` exactly where the order ends the log.

    entries: those between the state entry before and ``state``
    log:     the log's own delegation in force before them
    """
    order, count = None, 0
    for _, entry in entries:
        order, count = order_of(entry) or order, count + 1
    if order is not None and count != 1:
        raise Rejected("order", f"a {order.kind} among {count} entries", "an interval of its own")
    ending = order.kind if order is not None and order.ends_log else None
    if state.end != ending:
        raise Rejected("order", f"end {state.end} in state entry {state.index}", f"end {ending}")
    if order is not None:
        check_order(order, origin, log, state.ts)
    return order


def parse_vkeys(fields: Fields, name: str, origin: str) -> tuple[VerifierKey, ...]:
    """Read a set of 1 to 4 verifier keys that sign checkpoints of ``origin``, at most one of each type."""
    found = tuple(VerifierKey.parse(vkey) for vkey in strings(fields, name, MAX_KEYS, low=1, length=4096))
    for key in found:
        if key.name != origin or key.alg not in _LOG_TYPES:
            raise Malformed(f"{name} has the key {key.name} of type 0x{key.alg:02x}: not a key of {origin}")
    if len({key.alg for key in found}) != len(found):
        raise Malformed(f"{name} has two keys of one type")
    return found


def _parse(entry: bytes, low: int) -> Order:
    fields = Fields(parse_canonical(entry, MAX_ENTRY), "order")
    kind = fields.choice("type", *ORDER_TYPES)
    fields.integer("v", 1, 1)
    origin, issued = fields.name("log"), fields.time("issued")
    content = _content(fields, kind, origin)
    items = fields.items("signatures", MAX_SIGNATURES, low)
    fields.done()
    signatures = ascending(tuple(map(Signature.parse, items)), "signatures", lambda item: item.keyid)
    return Order(origin, issued, content, signatures)


def _content(fields: Fields, kind: str, origin: str) -> KeyRotation | Freeze | ShardClosed:
    if kind == "key-rotation":
        found = KeyRotation(
            parse_vkeys(fields, "add", origin), parse_vkeys(fields, "remove", origin), fields.time("until")
        )
        if {key.alg for key in found.add} != {key.alg for key in found.remove}:
            raise Malformed("the keys that are added are not of the types of those removed")
        if {key.public for key in found.add} & {key.public for key in found.remove}:
            raise Malformed("a key is both added and removed")
        return found
    reason = fields.text("reason", 512)
    if kind == "freeze":
        return Freeze(reason)
    successor = fields.fields("successor")
    name = successor.name("origin")
    if name == origin:
        raise Malformed("a log is not its own successor")
    closed = ShardClosed(reason, name, parse_vkeys(successor, "vkeys", name))
    successor.done()
    return closed


def _check_signature(order: Order, signature: Signature, roots: frozenset[str], log: Delegation) -> None:
    if signature.keyid not in roots:
        raise Rejected("order", f"a signature by {signature.keyid}", "signatures by the log's roots only")
    try:
        ed25519.verify(log.keys[signature.keyid], signature.sig, order.message)
    except InvalidSignature as error:
        raise Rejected("order", f"{signature.keyid}: {error}", "signatures that hold") from error


def _ids(keys: tuple[VerifierKey, ...]) -> str:
    return " and ".join(key.key_id.hex() for key in keys)


def _vkeys(keys: tuple[VerifierKey, ...]) -> list[str]:
    return sorted(key.vkey() for key in keys)
