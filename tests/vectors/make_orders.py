"""Makes the vectors of orders: small logs, and at which state entry, if any, an audit of their orders ends.

Run from the root of the repository: ``python -m tests.vectors.make_orders``. Where a log breaks a rule of
``docs/formats/orders.md`` is written down here by hand beside it; a test compares what the code says.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from quotary.canonical import b64, canonical
from quotary.statements.f1 import F1
from quotary.statements.order import Freeze, KeyRotation, Order, ShardClosed
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.note import SigningKey, VerifierKey
from tests.fakes.authority import DAY, NOW, ORIGIN, TS, Authority, key, keyid, keys, role
from tests.fakes.log import log_keys

FOLDER = Path(__file__).resolve().parent / "orders"
SUCCESSOR = "log2.example.org/simulation"
Change = Callable[[dict[str, object]], object]


def vkey(name: str, origin: str = ORIGIN) -> VerifierKey:
    """A log's Ed25519 key."""
    return SigningKey.log(origin, key(name)).verifier


ROTATION = KeyRotation((vkey("log new"),), (vkey("log old"),), NOW + 90 * DAY)
FREEZE = Freeze("the log's key was stolen")
CLOSED = ShardClosed("retired", SUCCESSOR, (vkey("log2", SUCCESSOR),))


def order(
    content: KeyRotation | Freeze | ShardClosed,
    signers: Iterable[str] = ("root1", "root2"),
    origin: str = ORIGIN,
    age: timedelta = timedelta(0),
) -> Order:
    return Order(origin, NOW - age, content).signed_by([key(name) for name in signers])


def changed(made: Order, change: Change) -> bytes:
    """The order with a change that its signatures do not know of."""
    document = json.loads(made.encode())
    change(document)
    return canonical(document)


class Story:
    """A log in the making."""

    def __init__(self, about: str, breaks: bool = False) -> None:
        self.about = about
        self.breaks = breaks
        self.by = Authority()
        self.log: list[bytes] = []
        self._f1 = F1(ORIGIN)
        self._nodes, self._root = trie.MemoryStore(), trie.EMPTY
        self._start = 0
        self._prev: int | None = None
        self.close(self.by.genesis())
        self.close(self.by.allocation(), self.by.delegation())

    def close(self, *entries: bytes, end: str | None = None, ts: int = TS) -> None:
        """Add an interval of these entries."""
        self.log += entries
        numbered = list(enumerate(self.log))[self._start :]
        changes = self._f1.close(numbered, ts).changes
        values = {name: hashlib.sha256(record).digest() for name, record in changes.items()}
        self._root = trie.update(self._nodes, self._root, values)
        state = StateEntry(len(self.log), {"F1": self._root}, ts, self._prev, end)
        self.log.append(state.encode())
        self._prev, self._start = state.index, len(self.log)

    def document(self) -> dict[str, object]:
        breaks_at = {"breaks_at": len(self.log) - 1} if self.breaks else {}
        return {"about": self.about, "origin": ORIGIN, "log": [b64(entry) for entry in self.log], **breaks_at}


def holding() -> Iterable[Story]:
    """Logs whose orders hold."""
    story = Story("a rotation, statements, and a freeze at the end")
    story.close(order(ROTATION).encode())
    story.close(story.by.release())
    story.close(order(FREEZE).encode(), end="freeze")
    yield story
    story = Story("closed, with a successor, by all three roots")
    story.close(order(CLOSED, ("root1", "root2", "root3")).encode(), end="shard-closed")
    yield story
    story = Story("reserved records of other types say nothing")
    story.close(b'{"type":"something-new"}', story.by.release(), b'{"type":{}}')
    yield story
    story = Story("an order is valid for 30 days, from 5 minutes before it was issued")
    story.close(order(ROTATION, age=30 * DAY - timedelta(seconds=1)).encode())
    story.close(order(FREEZE, age=timedelta(seconds=-300)).encode(), end="freeze")
    yield story
    story = Story("the roots of the delegation in force count")
    story.close(_new_roots(story.by))
    story.close(order(FREEZE, ("root4",)).encode(), end="freeze")
    yield story


def breaking() -> Iterable[Story]:
    """Logs that break a rule at their last state entry."""
    yield from _broken_interval()
    yield from _broken_authority()
    yield from _broken_form()


def _broken_interval() -> Iterable[Story]:
    story = Story("an order among statements", True)
    story.close(order(ROTATION).encode(), story.by.release())
    yield story
    story = Story("two orders in one interval", True)
    story.close(order(ROTATION).encode(), order(FREEZE).encode(), end="freeze")
    yield story
    for end in (None, "shard-closed"):
        story = Story(f"a freeze whose state entry says end {end}", True)
        story.close(order(FREEZE).encode(), end=end)
        yield story
    story = Story("an end after a rotation", True)
    story.close(order(ROTATION).encode(), end="freeze")
    yield story
    story = Story("an end without an order", True)
    story.close(story.by.release(), end="freeze")
    yield story
    story = Story("a statement after the end", True)
    story.close(order(FREEZE).encode(), end="freeze")
    story.close(story.by.release())
    yield story


def _broken_authority() -> Iterable[Story]:
    cases: list[tuple[str, Order]] = [
        ("one root of two", order(FREEZE, ("root1",))),
        ("two roots and a key that is none", order(FREEZE, ("root1", "root2", "security1"))),
        ("owners of a service", order(FREEZE, ("owner1", "owner2"))),
        ("an order for another log", order(FREEZE, origin=SUCCESSOR)),
        ("an order of 30 days ago", order(FREEZE, age=30 * DAY)),
        ("an order from more than 5 minutes ahead", order(FREEZE, age=timedelta(seconds=-301))),
    ]
    for about, made in cases:
        story = Story(about, True)
        story.close(made.encode(), end="freeze")
        yield story
    story = Story("the roots before the delegation in force", True)
    story.close(_new_roots(story.by))
    story.close(order(FREEZE).encode(), end="freeze")
    yield story
    story = Story("a delegation in the same interval does not count yet", True)
    story.close(_new_roots(story.by), order(FREEZE, ("root4",)).encode(), end="freeze")
    yield story
    story = Story("roots whose delegation has expired", True)
    late = NOW + 3650 * DAY
    made = Order(ORIGIN, late, FREEZE).signed_by([key("root1"), key("root2")])
    story.close(made.encode(), end="freeze", ts=int(late.timestamp()))
    yield story


def _broken_form() -> Iterable[Story]:
    def reason(document: dict[str, object]) -> None:
        document["reason"] = "something else"

    def flip(document: dict[str, object]) -> None:
        found = document["signatures"]
        assert isinstance(found, list)
        found[0]["sig"] = b64(bytes(63) + b"\x01")

    forms: list[tuple[str, Change]] = [
        ("a word that nobody signed", reason),
        ("a signature that does not hold", flip),
        ("another version", lambda d: d.update(v=2)),
        ("no signature", lambda d: d.update(signatures=[])),
        ("one more member", lambda d: d.update(ts=TS)),
        ("a reason without text", lambda d: d.update(reason="")),
        ("a reason that is too long", lambda d: d.update(reason="a" * 513)),
        ("a time that is none", lambda d: d.update(issued="2026-11-21")),
        ("signatures out of order", lambda d: d["signatures"].reverse()),  # type: ignore[attr-defined]  # a list
        ("the same signature twice", lambda d: d.update(signatures=[d["signatures"][0]] * 2)),  # type: ignore[index]  # a list
    ]
    for about, change in forms:
        story = Story(f"freeze: {about}", True)
        story.close(changed(order(FREEZE), change), end="freeze")
        yield story
    for about, content in _bad_rotations():
        story = Story(f"rotation: {about}", True)
        story.close(order(content).encode())
        yield story
    story = Story("closed: one more member in the successor", True)
    more = changed(order(CLOSED), lambda d: d["successor"].update(more=1))  # type: ignore[attr-defined]  # an object
    story.close(more, end="shard-closed")
    yield story
    for about, closed in _bad_successors():
        story = Story(f"closed: {about}", True)
        story.close(order(closed).encode(), end="shard-closed")
        yield story


def _bad_rotations() -> Iterable[tuple[str, KeyRotation]]:
    until = NOW + 90 * DAY
    witness = SigningKey.cosigner(ORIGIN, key("log new")).verifier
    new, old = (vkey("log new"),), (vkey("log old"),)
    yield "a key of another name", KeyRotation((vkey("log new", SUCCESSOR),), old, until)
    before = SigningKey.cosigner(ORIGIN, key("log old")).verifier
    yield "keys of a type that signs no log", KeyRotation((witness,), (before,), until)
    yield "two keys of one type", KeyRotation((*new, vkey("x")), old, until)
    yield (
        "a key of another type than the one removed",
        KeyRotation((log_keys(ORIGIN)[1].verifier,), old, until),
    )
    yield "the old key again", KeyRotation(old, old, until)
    yield "nothing added", KeyRotation((), old, until)
    yield "nothing removed", KeyRotation(new, (), until)


def _bad_successors() -> Iterable[tuple[str, ShardClosed]]:
    yield "its own successor", ShardClosed("retired", ORIGIN, (vkey("log2"),))
    yield "keys of another name", ShardClosed("retired", SUCCESSOR, (vkey("log2"),))
    yield "no keys", ShardClosed("retired", SUCCESSOR, ())


def _new_roots(by: Authority) -> bytes:
    """The roots give the log to one new root."""
    return by.delegation(
        "log",
        signers=("root1", "root2"),
        sequence=2,
        previous=by.last_delegation["log"],
        keys=keys("root4"),
        roles={"root": role(["root4"], 1)},
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    assert keyid("root1") < keyid("root2"), "the forms change the first signature"
    for name, stories in (("holding", holding), ("breaking", breaking)):
        document = {"about": (stories.__doc__ or "").strip(), "cases": [s.document() for s in stories()]}
        FOLDER.joinpath(f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
