"""What holds of F1 whatever the entries: it never fails, never forgets a revocation, and intervals do not matter."""

import json
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.statements.f1 import F1
from quotary.statements.outcome import CODES, EFFECTIVE, Outcome
from tests.fakes.authority import DAY, ORIGIN, TS, Authority, keyid

BEGINNING = [Authority().genesis(), Authority().allocation()]
SEEDS = st.sampled_from("abc")
SERVICES = st.sampled_from(["chat", "log"])
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("release"), st.sets(SEEDS, min_size=1)),
        st.tuples(st.just("revoke"), st.sets(SEEDS, min_size=1), SERVICES),
        st.tuples(st.just("suspend"), st.sets(SEEDS, min_size=1), SERVICES),
        st.tuples(st.just("rebuild"), st.sets(SEEDS, min_size=1)),
        st.tuples(st.just("compromise"), st.integers(0, 9)),
    ),
    max_size=8,
)


def entries(moves: list[tuple[object, ...]]) -> list[bytes]:
    by = Authority()
    found = [by.genesis(), by.allocation(), by.delegation()]
    last = by.release("a")
    found.append(last)
    builder = "builder1"
    for name, what, *where in moves:
        if name == "release":
            assert isinstance(what, set)
            last = by.release(*sorted(what), signers=[builder])
            found.append(last)
        elif name == "rebuild":
            assert isinstance(what, set)
            found.append(by.rebuild(last, dict.fromkeys(sorted(what), True)))
        elif name == "compromise":
            assert isinstance(what, int)
            lost = [{"key": keyid(builder), "from_index": what}]
            builder = "builder2" if builder == "builder1" else "builder1"
            found.append(by.delegation(builders=(builder,), compromised=lost))
        else:
            assert isinstance(what, set)
            length = DAY if name == "suspend" else None
            found.append(by.revocation(sorted(what), str(where[0]), signers=["security1"], suspend=length))
    return found


@settings(max_examples=40)
@given(MOVES)
def test_nothing_leaves_revoked_and_counts_only_rise(moves: list[tuple[object, ...]]) -> None:
    f1 = F1(ORIGIN)
    before: dict[bytes, dict[str, object]] = {}
    for index, entry in enumerate(entries(moves)):
        closed = f1.close([(index, entry)], TS)
        assert bool(closed.changes) == closed.outcomes[0].effect
        for key, text in closed.changes.items():
            record = json.loads(text)
            old = before.get(key, {})
            assert old.get("status") != "revoked" or record["status"] == "revoked"
            assert record["count"] == int(str(old.get("count", 0))) + 1
            before[key] = record


@settings(max_examples=30)
@given(MOVES, st.randoms(use_true_random=False))
def test_records_do_not_depend_on_how_an_hour_is_cut_into_intervals(
    moves: list[tuple[object, ...]], chance: Random
) -> None:
    log = list(enumerate(entries(moves)))
    whole = F1(ORIGIN).close(log, TS)
    f1 = F1(ORIGIN)
    changes: dict[bytes, bytes] = {}
    outcomes: list[Outcome] = []
    while log:
        some = chance.randint(1, len(log))
        closed = f1.close(log[:some], TS)
        changes.update(closed.changes)
        outcomes += closed.outcomes
        log = log[some:]
    assert changes == whole.changes
    assert tuple(outcomes) == whole.outcomes


@settings(max_examples=60)
@given(st.binary(max_size=80) | st.integers(0, 8 * len(BEGINNING[1]) - 1))
def test_no_bytes_make_f1_fail(what: bytes | int) -> None:
    entry = bytearray(BEGINNING[1]) if isinstance(what, int) else bytearray(what)
    if isinstance(what, int):
        entry[what // 8] ^= 1 << what % 8
    f1 = F1(ORIGIN)
    f1.close([(0, BEGINNING[0])], TS)
    for outcome in f1.close([(1, bytes(entry))], TS).outcomes:
        assert outcome.code in CODES
        assert not outcome.effect


def test_a_copy_costs_little_beside_what_it_copies() -> None:
    by, f1 = Authority(), F1(ORIGIN)
    found = [by.genesis(), by.allocation(), by.delegation()]
    found += [by.release(*(f"{batch} {at}" for at in range(20))) for batch in range(10)]
    closed = f1.close(enumerate(found), TS)
    assert {outcome.code for outcome in closed.outcomes} == {EFFECTIVE}
    other = f1.copy()
    later = TS + int(timedelta(hours=1).total_seconds())
    assert len(other.close([(99, by.revocation(["3 7"]))], later).changes) == 1
