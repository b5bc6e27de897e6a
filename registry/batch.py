"""Compute what one sequencing transaction writes, from the committed head and the entries to append."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from quotary.errors import QuotaryError
from quotary.statements.envelope import Envelope
from quotary.statements.f1 import Closed
from quotary.statements.outcome import Outcome
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from registry.replica import Follower
from registry.store import Batch, Head, OutcomeRow, Waiting
from registry.terms import terms_of
from registry.tree import StoredNodes


def append_only(old: Head, follower: Follower, waiting: Sequence[Waiting]) -> Batch:
    """Append entries and leave the interval open."""
    for row in waiting:
        follower.feed(row.data)
    return _grown(old, [(row.leaf_hash, row.data) for row in waiting], waiting)


def append_and_close(
    old: Head,
    follower: Follower,
    waiting: Sequence[Waiting],
    nodes: StoredNodes,
    ts: int,
    end: str | None = None,
) -> Batch:
    """Append entries, close the interval at log time ``ts``, and append the state entry that commits the
    map; ``end`` is the type of the order that ends the log with it.
    """
    for row in waiting:
        follower.feed(row.data)
    interval = dict(follower.waiting)
    state_index = follower.size
    closed = follower.close(ts)
    values = {key: hashlib.sha256(record).digest() for key, record in closed.changes.items()}
    trie_root = trie.update(nodes, old.trie_root, values)
    previous = old.state_index if old.state_index >= 0 else None
    state = StateEntry(state_index, {"F1": trie_root}, ts, previous, end).encode()
    entries = [(row.leaf_hash, row.data) for row in waiting] + [(leaf_hash(state), state)]
    batch = _grown(old, entries, waiting)
    head = replace(batch.head, trie_root=trie_root, ts=ts, state_index=state_index)
    return _with_meaning(replace(batch, head=head), closed, interval, nodes)


def _grown(old: Head, entries: list[tuple[bytes, bytes]], waiting: Sequence[Waiting]) -> Batch:
    frontier, full = Frontier.parse(old.frontier).append([leaf for leaf, _ in entries])
    head = replace(old, size=frontier.size, root=frontier.root(), frontier=bytes(frontier))
    tiles = tuple((tile.level, tile.n, tile.data) for tile in full)
    return Batch(old, head, tuple(entries), tiles, tuple(row.id for row in waiting))


def _with_meaning(batch: Batch, closed: Closed, interval: Mapping[int, bytes], nodes: StoredNodes) -> Batch:
    statements = {index: _statement(entry) for index, entry in interval.items()}
    closed_by = batch.head.state_index
    outcomes = tuple(_outcome(found, statements[found.index], closed_by) for found in closed.outcomes)
    terms = frozenset(
        (term, index) for index, statement in statements.items() if statement for term in terms_of(statement)
    )
    return replace(batch, nodes=dict(nodes.new), records=closed.changes, outcomes=outcomes, terms=terms)


def _outcome(found: Outcome, statement: Statement | None, closed_by: int) -> OutcomeRow:
    return OutcomeRow(
        index=found.index,
        closed_by=closed_by,
        kind=statement.kind if statement else "",
        service=statement.service if statement else "",
        sequence=statement.sequence if statement else 0,
        statement_id=statement.statement_id if statement else "",
        effect=found.effect,
        code=found.code,
    )


def _statement(entry: bytes) -> Statement | None:
    try:
        return parse_statement(Envelope.parse(entry).payload)
    except QuotaryError:
        return None
