"""Compute what one sequencing transaction writes, from the committed head and the entries to append."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from quotary.statements.f1 import F1, Closed
from quotary.statements.opened import Opened
from quotary.statements.outcome import Outcome
from quotary.statements.records import MeasurementRecord
from quotary.statements.state import State
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from registry.opening import Opening
from registry.seal import Seal
from registry.store import Batch, Head, OutcomeRow, Reader, States, Waiting
from registry.tree import StoredNodes

SIGNED_KINDS = ("release", "rebuild")


class Intervals:
    """Closes intervals of one log over its database, whose state F1 reads as it needs it.

    seal: opens what this registry's judge says of entries; without one every entry is read and verified here
    """

    def __init__(self, origin: str, read: Reader, seal: Seal | None = None) -> None:
        self._seal = seal
        self._origin = origin
        self._read = read
        self._states = States(read)
        self._nodes = StoredNodes(read)

    def close(self, old: Head, waiting: Sequence[Waiting], ts: int, end: str | None = None) -> Batch:
        """Append entries, close the interval at log time ``ts``, and append the state entry that commits
        the map; ``end`` is the type of the order that ends the log with it.
        """
        first, state_index = old.state_index + 1, old.size + len(waiting)
        # Whoever stopped between two transactions of one interval left entries that are not decided yet.
        entries = self._read.entries(first, old.size) if first < old.size else []
        opening = Opening.of(entries, first)
        opening.take(waiting, old.size, self._seal)
        known = self._states.at(first)
        known.warm([item.statement for item in opening.opened.values() if item.statement])
        f1 = F1(self._origin, State(known), first, opening.held.verify)
        closed = f1.decide(opening.opened.items(), ts)
        self._nodes.begin()
        values = {key: hashlib.sha256(record).digest() for key, record in closed.changes.items()}
        trie_root = trie.update(self._nodes, old.trie_root, values)
        previous = old.state_index if old.state_index >= 0 else None
        state = StateEntry(state_index, {"F1": trie_root}, ts, previous, end).encode()
        batch = _grown(old, [*_hashed(waiting), (leaf_hash(state), state)], waiting)
        head = replace(batch.head, trie_root=trie_root, ts=ts, state_index=state_index)
        return with_meaning(replace(batch, head=head, nodes=self._nodes.new), closed, opening, first)


def append_only(old: Head, waiting: Sequence[Waiting]) -> Batch:
    """Append entries and leave the interval open."""
    return _grown(old, _hashed(waiting), waiting)


def with_meaning(batch: Batch, closed: Closed, opening: Opening, first: int) -> Batch:
    """Add what F1 made of the entries from index ``first`` on to a batch that closes their interval."""
    opened = opening.opened
    closed_by = batch.head.state_index
    outcomes = tuple(outcome_row(found, opened[found.index], closed_by) for found in closed.outcomes)
    return replace(
        batch,
        records=closed.changes,
        outcomes=outcomes,
        terms=frozenset(opening.terms),
        holders=holders_in(closed, first),
        denied=closed.denied,
        signers=signers_in(closed, opened),
    )


def holders_in(closed: Closed, first: int) -> frozenset[tuple[bytes, str]]:
    """Give the measurement records that an interval made; ``first`` is its first index."""
    return frozenset(
        (record.measurement, record.service)
        for record in closed.records.values()
        if isinstance(record, MeasurementRecord) and record.first >= first
    )


def signers_in(closed: Closed, opened: Mapping[int, Opened]) -> frozenset[tuple[bytes, int]]:
    """Give key and index of each signature of the releases and rebuilds that had effect."""
    return frozenset(
        (bytes.fromhex(signature.keyid.removeprefix("sha256:")), found.index)
        for found in closed.outcomes
        if found.effect and found.kind in SIGNED_KINDS and (envelope := opened[found.index].envelope)
        for signature in envelope.signatures
    )


def outcome_row(found: Outcome, opened: Opened, closed_by: int) -> OutcomeRow:
    """Give what the database keeps of one outcome."""
    statement = opened.statement
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


def _hashed(waiting: Sequence[Waiting]) -> list[tuple[bytes, bytes]]:
    return [(row.leaf_hash, row.data) for row in waiting]


def _grown(old: Head, entries: list[tuple[bytes, bytes]], waiting: Sequence[Waiting]) -> Batch:
    frontier, full = Frontier.parse(old.frontier).append([leaf for leaf, _ in entries])
    head = replace(old, size=frontier.size, root=frontier.root(), frontier=bytes(frontier))
    tiles = tuple((tile.level, tile.n, tile.data) for tile in full)
    return Batch(old, head, tuple(entries), tiles, tuple(row.id for row in waiting))
