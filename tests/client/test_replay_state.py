"""F1's state in the audit store answers as the one in memory does, after every interval."""

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quotary.client.replay_state import SCHEMA, StoredState
from quotary.errors import CannotTell
from quotary.statements.f1 import F1
from quotary.statements.keys import key_measurement
from quotary.statements.opened import open_entry
from quotary.statements.schema import Statement
from quotary.statements.state import State
from quotary.statements.state_entry import is_reserved, state_of
from quotary.tlog import trie
from quotary.tlog.trie_summary import Summary
from tests.fakes.authority import ORIGIN, TS, Authority
from tests.registry.test_state import VECTORS, Names


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.executescript(SCHEMA)
        yield opened


@pytest.mark.parametrize("case", VECTORS)
def test_both_states_give_the_same_changes_and_answers_on_the_vectors(
    case: dict[str, Any], database: sqlite3.Connection
) -> None:
    compare(case, database)


def compare(case: dict[str, Any], database: sqlite3.Connection) -> None:
    """Feed a log to both; after each interval another object, without memory, must know all of it."""
    log = [base64.b64decode(entry) for entry in case["log"]]
    names, path = Names(log), Path("audit.db")
    stored, memory = StoredState(database, path), State()
    whole = F1(case["origin"], memory)
    first = 0
    for index, entry in enumerate(log):
        found = state_of(entry)
        if found is None:
            continue
        interval = [item for item in enumerate(log[first:index], first) if not is_reserved(item[1])]
        changed = State(stored)
        opened = [open_entry(entry).statement for _, entry in interval]
        stored.expect(statement for statement in opened if statement is not None)
        closed = F1(case["origin"], changed, first).close(interval, found.ts)
        assert closed == whole.close(interval, found.ts)
        stored.absorb(changed.new, closed.changes, log.__getitem__)
        names.compare(stored, memory)
        assert Summary(stored.pairs, 3).root == found.maps["F1"]
        first = index + 1
    names.compare(StoredState(database, path), memory)


def story(database: sqlite3.Connection) -> tuple[StoredState, list[bytes]]:
    by, state = Authority(), StoredState(database, Path("audit.db"))
    log = [by.genesis(), by.allocation(), by.delegation(), by.release("r1")]
    changed = State(state)
    closed = F1(ORIGIN, changed).close(enumerate(log), TS)
    state.absorb(changed.new, closed.changes, log.__getitem__)
    return StoredState(database, Path("audit.db")), log


def test_a_record_that_is_not_the_one_of_the_map_is_refused(database: sqlite3.Connection) -> None:
    state, _ = story(database)
    for key, _ in list(state.pairs(bytes(32), b"\xff" * 32)):
        assert state.record(key) is not None
    database.execute("UPDATE contents SET record = CAST(record || ' ' AS BLOB)")
    for key, _ in list(state.pairs(bytes(32), b"\xff" * 32)):
        with pytest.raises(CannotTell, match="is damaged"):
            state.record(key)


def test_a_record_that_is_gone_is_refused(database: sqlite3.Connection) -> None:
    state, _ = story(database)
    database.execute("DELETE FROM contents")
    for key, _ in list(state.pairs(bytes(32), b"\xff" * 32)):
        with pytest.raises(CannotTell, match="is damaged"):
            state.record(key)


def test_a_record_that_changes_stays_in_its_place(database: sqlite3.Connection) -> None:
    state, log = story(database)
    places = "SELECT key, place FROM records ORDER BY key"
    before = dict(database.execute(places).fetchall())
    changed = State(state)
    by = Authority()
    made = [by.genesis(), by.allocation(), by.delegation(), by.release("r1"), by.release("r0", "r1")]
    assert made[:4] == log
    closed = F1(ORIGIN, changed, 4).close([(4, made[4])], TS)
    state.absorb(changed.new, closed.changes, made.__getitem__)
    after = dict(database.execute(places).fetchall())
    assert before.items() <= after.items()
    assert sorted(after.values()) == [1, 2, 3, 4]
    assert [place for (place,) in database.execute("SELECT place FROM contents")] == [1, 2, 3, 4]
    for key, record in closed.changes.items():
        found = state.record(key)
        assert found is not None
        assert found.encode() == record


def test_a_delegation_that_is_gone_or_another_one_is_refused(database: sqlite3.Connection) -> None:
    state, log = story(database)
    database.execute("UPDATE delegations SET entry = ? WHERE entry_index = 0", (log[1],))
    with pytest.raises(CannotTell, match="is damaged"):
        state.held("log")
    database.execute("DELETE FROM delegations")
    with pytest.raises(CannotTell, match="is damaged"):
        state.held("log")


def test_what_is_expected_is_absent_only_as_long_as_it_is_not_there(database: sqlite3.Connection) -> None:
    by, state = Authority(), StoredState(database, Path("audit.db"))
    log = [by.genesis(), by.allocation(), by.delegation(), *(by.release(f"r{n}") for n in range(70))]
    statements = [found for entry in log if (found := open_entry(entry).statement) is not None]
    asked: list[str] = []
    database.set_trace_callback(asked.append)
    state.expect(statements)
    assert [len(asked), answers(state, statements)] == [4, [(False, False)] * 70]
    assert len(asked) == 4  # 73 statements and 70 records in two readings each, and nothing after them
    changed = State(state)
    closed = F1(ORIGIN, changed).close(enumerate(log), TS)
    state.absorb(changed.new, closed.changes, log.__getitem__)
    assert answers(state, statements) == [(True, True)] * 70
    state.expect(statements)
    assert answers(state, statements) == [(True, True)] * 70


def answers(state: StoredState, statements: list[Statement]) -> list[tuple[bool, bool]]:
    """Say of each release whether it had effect and whether its row has a record."""
    claims = [(item.statement_id, item.predicate.claim) for item in statements if item.kind == "release"]
    keys = [key_measurement(claim.header.service, claim.measurements[0]) for _, claim in claims]
    names = [name for name, _ in claims]
    return [
        (state.had_effect(name), state.record(key) is not None) for name, key in zip(names, keys, strict=True)
    ]


def test_an_empty_state_has_the_empty_map(database: sqlite3.Connection) -> None:
    state = StoredState(database, Path("audit.db"))
    assert Summary(state.pairs, 4).root == trie.EMPTY
    assert state.held("log") is None
    assert state.sequence("log", "delegation") == 0
