"""Begin a log that goes on from a closed one (docs/formats/orders.md, "Succession")."""

from contextlib import closing
from datetime import datetime

from quotary.errors import Refused
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, sign
from quotary.statements.f1 import F1
from quotary.statements.order import Order, ShardClosed
from quotary.statements.records import ServiceRecord, parse_record
from quotary.statements.schema import parse_statement
from quotary.statements.state_entry import StateEntry
from quotary.statements.succession import Heritage, payloads
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import TlogPolicy
from registry.config import Config
from registry.identity import read_public
from registry.setup import Roots, own_genesis
from registry.store import Reader, open_store

MAX_STATEMENTS = 30_000
"""The sequencer closes an interval after 32,768 entries; all of these have to be in the first."""


def begin(config: Config, predecessor: Config, now: datetime, roots: Roots | None = None) -> int:
    """Let the genesis of ``config`` wait, and what it takes over; give the number of those statements.

    roots: the new log's, which sign all of it; without them one root key is made in the keys folder

    1. The new log has no entry. 2. The old one is published to its end, under its own policy, and its order
    names the new log's origin and keys. 3. Everything that is taken over has effect.
    """
    with (
        closing(open_store(config.database_url)) as store,
        closing(open_store(predecessor.database_url)) as old,
    ):
        head = store.read.head()
        if (head and head.size) or store.read.waiting_count():
            raise Refused("successor", "a log with entries", "one made with init --successor")
        state, bound = _closed(predecessor, old.read)
        _check_named(config, old.read, state.index)
        genesis, roots = own_genesis(config, now, roots, {**bound, "map": state.maps["F1"].hex()})
        found = _heritage(old.read, state.index + 1, int(now.timestamp()))
        made = payloads(found, config.origin, now.replace(microsecond=0))
        entries = [genesis, *(sign(payload, roots.keys) for payload in made)]
        _check_effect(config.origin, entries, int(now.timestamp()))
        store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], int(now.timestamp()))
        return len(made)


def _closed(config: Config, read: Reader) -> tuple[StateEntry, dict[str, object]]:
    published = read.published()
    if published is None:
        raise Refused("predecessor", "nothing published", "a closed log")
    checkpoint = TlogPolicy.parse(config.policy.read_text("utf-8")).verify(published.note).checkpoint
    state = StateEntry.parse(read.entries(checkpoint.size - 1, checkpoint.size)[0])
    if state.end != "shard-closed":
        found = f"a log that ended with {state.end}" if state.end else "a log that goes on"
        raise Refused("predecessor", found, "a closed log", next_command="quotary registry order close")
    return state, {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}


def _check_named(config: Config, read: Reader, state_index: int) -> None:
    content = Order.parse(read.entries(state_index - 1, state_index)[0]).content
    assert isinstance(content, ShardClosed), "the state entry behind it says so"
    ours = set(read_public(config.keys / "public").log)
    if (content.origin, set(content.vkeys)) != (config.origin, ours):
        ids = ", ".join(sorted(key.key_id.hex() for key in content.vkeys))
        wanted = f"{config.origin} with the keys {', '.join(sorted(key.key_id.hex() for key in ours))}"
        raise Refused("successor", f"{content.origin} with the keys {ids}", wanted)


def _heritage(read: Reader, size: int, ts: int) -> Heritage:
    records = tuple(parse_record(record) for record in read.records(size))
    delegations = {}
    for record in records:
        if isinstance(record, ServiceRecord):
            entry = read.entries(record.index, record.index + 1)[0]
            predicate = parse_statement(Envelope.parse(entry).payload).predicate
            assert isinstance(predicate, Delegation), "a service's record names its delegation"
            delegations[record.service] = predicate
    return Heritage(records, delegations, ts)


def _check_effect(origin: str, entries: list[bytes], ts: int) -> None:
    if len(entries) > MAX_STATEMENTS:
        raise Refused("successor", f"{len(entries)} statements to take over", f"at most {MAX_STATEMENTS}")
    for outcome in F1(origin).close(list(enumerate(entries)), ts).outcomes:
        if not outcome.effect:
            raise Refused("successor", f"{outcome.kind} {outcome.index}: {outcome.code}", "one with effect")
