"""Whether a log took over everything from the closed log before it (docs/formats/orders.md, "Succession").

Both logs were audited: the closed one to its end, the successor at least as far as its first interval. What
is compared here is what the two say of each other, and what the successor's roots said again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from quotary.client.audit import Audited
from quotary.client.finding import Exhibit, Finding
from quotary.client.replay import proven_batches
from quotary.client.replay_state import StoredState
from quotary.client.source import Files
from quotary.errors import Refused, Rejected
from quotary.statements.delegation import Delegation, Predecessor
from quotary.statements.envelope import Envelope
from quotary.statements.f1 import F1
from quotary.statements.order import KeyRotation, Order, ShardClosed
from quotary.statements.records import ServiceRecord
from quotary.statements.schema import parse_statement
from quotary.statements.state_entry import StateEntry, is_reserved, state_of
from quotary.statements.succession import Heritage, carried, check_carried
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note, VerifierKey

CHECK = "succession"


@dataclass(frozen=True, slots=True)
class Closed:
    """A log that was audited to its end; ``note`` is its last checkpoint, ``state`` what F1 made of it."""

    audited: Audited
    note: bytes
    state: StoredState


@dataclass(frozen=True, slots=True)
class Successor:
    """The log that should go on from it; ``keys`` are those that the auditor's policy lists."""

    audited: Audited
    note: bytes
    files: Files
    keys: tuple[VerifierKey, ...]


@dataclass(frozen=True, slots=True)
class Inherited:
    """What held: the closed log by name and size, and how many statements were said again."""

    origin: str
    size: int
    statements: int


def check_succession(old: Closed, new: Successor) -> Inherited:
    """Compare both logs, or raise ``Finding``; ``Refused`` where the older one is not closed.

    1. The last order of the old log closes it in favour of the new log's origin.
    2. Each log key of the policy is named there, or took a place in a rotation since.
    3. The new genesis names the old log's last checkpoint and map root.
    4. The new log's first interval says again, with effect, all that is taken over.
    """
    shown = (Exhibit("checkpoint", new.note), Exhibit("predecessor", old.note))
    order = _closing(old.audited.orders)
    _require(order.origin, new.audited.origin, shown)
    _check_keys(order, new, shown)
    entries, state = _first_interval(new)
    _check_genesis(entries[0][1], old.audited, shown)
    found = heritage(old.state, state.ts)
    try:
        check_carried(found, _effective(new.audited.origin, entries, state.ts))
    except Rejected as error:
        raise Finding(CHECK, error.found, error.wanted, shown) from error
    return Inherited(old.audited.origin, old.audited.size, len(carried(found)))


def heritage(state: StoredState, ts: int) -> Heritage:
    """Give what a closed log leaves to a successor that begins at ``ts`` (seconds since 1970)."""
    records = tuple(state.records())
    services = (record.service for record in records if isinstance(record, ServiceRecord))
    held = {name: found.delegation for name in services if (found := state.held(name)) is not None}
    return Heritage(records, held, ts)


def _closing(orders: tuple[tuple[int, Order], ...]) -> ShardClosed:
    content = orders[-1][1].content if orders else None
    if not isinstance(content, ShardClosed):
        found = "a log that goes on" if content is None else orders[-1][1].sentence
        raise Refused("predecessor", found, "a log that its roots closed")
    return content


def _check_keys(order: ShardClosed, new: Successor, shown: tuple[Exhibit, ...]) -> None:
    rotations = (each.content for _, each in new.audited.orders if isinstance(each.content, KeyRotation))
    known = {*order.vkeys, *(key for content in rotations for key in content.add)}
    strange = [key.key_id.hex() for key in new.keys if key not in known]
    if strange:
        wanted = f"the keys {', '.join(sorted(key.key_id.hex() for key in known))}"
        raise Finding(CHECK, f"a policy with the key {', '.join(strange)}", wanted, shown)


def _first_interval(new: Successor) -> tuple[list[tuple[int, bytes]], StateEntry]:
    """Give the entries up to the first state entry, each proven under the checkpoint."""
    entries: list[tuple[int, bytes]] = []
    for index, entry in _proven(new):
        state = state_of(entry)
        if state is not None:
            return entries, state
        entries.append((index, entry))
    raise AssertionError("an audited log has a state entry")


def _proven(new: Successor) -> Iterator[tuple[int, bytes]]:
    checkpoint = Checkpoint.parse(Note.parse(new.note).text)
    for batch in proven_batches(new.files, checkpoint, 0, new.note):
        yield from enumerate(batch.entries, batch.start)


def _check_genesis(entry: bytes, old: Audited, shown: tuple[Exhibit, ...]) -> None:
    predicate = parse_statement(Envelope.parse(entry).payload).predicate
    assert isinstance(predicate, Delegation), "an audited log begins with one"
    wanted = Predecessor(old.origin, old.size, old.root, old.map_root)
    _require(_words(wanted), _words(predicate.predecessor), (*shown, Exhibit("entry 0", entry)))


def _words(found: Predecessor | None) -> str:
    if found is None:
        return "no predecessor"
    return f"{found.origin} of {found.size} entries, root {found.root.hex()}, map {found.map_root.hex()}"


def _require(wanted: str, found: str, shown: tuple[Exhibit, ...]) -> None:
    if found != wanted:
        raise Finding(CHECK, found, wanted, shown)


def _effective(origin: str, entries: list[tuple[int, bytes]], ts: int) -> list[bytes]:
    said = [(index, entry) for index, entry in entries if not is_reserved(entry)]
    outcomes = F1(origin).close(said, ts).outcomes
    return [
        Envelope.parse(entry).payload
        for (_, entry), outcome in zip(said, outcomes, strict=True)
        if outcome.effect
    ]
