"""Work that is shared by those who come at the same time, and callers that wait for their entry."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from quotary.errors import Refused
from quotary.tlog.merkle import leaf_hash
from registry.group import Group
from registry.store import EMPTY_HEAD, Batch, Published, Store, create_store
from registry.waiting import Waiters
from tests.fakes.processes import until

SECONDS = 30.0
NEAR = "127.0.0.1"


@dataclass
class Work:
    """Doubles numbers, notes what came together, and waits for ``go`` before each piece."""

    groups: list[list[int]] = field(default_factory=list)
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        assert self.go.acquire(timeout=SECONDS)
        if 13 in items:
            raise Refused("number", "13", "another one")
        return [2 * item for item in items]


def test_those_who_come_while_others_are_worked_for_share_the_next_piece() -> None:
    work = Work()
    group = Group(work, 3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.do, 0)
        until(lambda: work.groups == [[0]], "the first is worked for")
        others = []
        for number in range(1, 6):
            others.append(pool.submit(group.do, number))
            until(lambda number=number: len(group._waiting) == number, "the next one waits")
        for _ in range(3):
            work.go.release()
        assert [future.result(SECONDS) for future in (first, *others)] == [0, 2, 4, 6, 8, 10]
    assert work.groups == [[0], [1, 2, 3], [4, 5]]


def test_what_goes_wrong_for_a_group_goes_wrong_for_each_of_it_and_for_nobody_else() -> None:
    work = Work()
    group = Group(work, 8)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.do, 0)
        until(lambda: work.groups == [[0]], "the first is worked for")
        others = [pool.submit(group.do, number) for number in (7, 13)]
        until(lambda: len(group._waiting) == 2, "two wait")
        work.go.release()
        work.go.release()
        for other in others:
            with pytest.raises(Refused, match="13"):
                other.result(SECONDS)
        assert first.result(SECONDS) == 0
    work.go.release()
    assert group.do(21) == 42


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(create_store(f"sqlite:///{tmp_path / 'log.db'}")) as made:
        made.write.create(EMPTY_HEAD)
        yield made


def log_and_publish(store: Store, entries: Sequence[bytes], published: int) -> None:
    rows = tuple((leaf_hash(entry), entry) for entry in entries)
    store.write.integrate(Batch(EMPTY_HEAD, replace(EMPTY_HEAD, size=len(rows)), rows, (), ()))
    store.write.publish(Published(published, b"note", 1))


def test_a_caller_hears_of_its_entry_when_it_is_published_and_not_when_it_is_logged(store: Store) -> None:
    waiters = Waiters(store.read, 4)
    with ThreadPoolExecutor(4) as pool:
        early, late = (pool.submit(waiters.wait, leaf_hash(entry), SECONDS, NEAR) for entry in (b"0", b"1"))
        log_and_publish(store, [b"0", b"1"], published=1)
        assert early.result(SECONDS) == 0
        assert not late.done()
        store.write.publish(Published(2, b"note", 1))
        assert late.result(SECONDS) == 1
    assert waiters.wait(leaf_hash(b"1"), SECONDS, NEAR) == 1


def test_nobody_waits_longer_than_asked_and_no_more_wait_than_allowed(store: Store) -> None:
    waiters = Waiters(store.read, 1)
    assert waiters.wait(leaf_hash(b"never"), 0.01, NEAR) is None
    with ThreadPoolExecutor(1) as pool:
        only = pool.submit(waiters.wait, leaf_hash(b"0"), SECONDS, NEAR)
        until(lambda: len(waiters._callers) == 1, "one waits")
        assert waiters.wait(leaf_hash(b"0"), SECONDS, NEAR) is None
        log_and_publish(store, [b"0"], published=1)
        assert only.result(SECONDS) == 0


def test_a49_an_address_that_waits_fifty_times_takes_half_of_the_places(store: Store) -> None:
    waiters = Waiters(store.read, 8)
    with ThreadPoolExecutor(60) as pool:
        abuse = [pool.submit(waiters.wait, leaf_hash(b"0"), SECONDS, "192.0.2.66") for _ in range(50)]
        until(lambda: sum(each.done() for each in abuse) == 46, "all but four are sent away")
        honest = [pool.submit(waiters.wait, leaf_hash(b"0"), SECONDS, f"192.0.2.{n}") for n in range(4)]
        until(lambda: len(waiters._callers) == 8, "the honest wait beside them")
        assert waiters.wait(leaf_hash(b"0"), SECONDS, "192.0.2.9") is None
        log_and_publish(store, [b"0"], published=1)
        assert [each.result(SECONDS) for each in honest] == [0] * 4
        assert sorted(str(each.result(SECONDS)) for each in abuse) == ["0"] * 4 + ["None"] * 46


def test_the_thread_that_looks_ends_when_nobody_waits(store: Store) -> None:
    before = threading.active_count()
    waiters = Waiters(store.read, 4)
    for _ in range(3):
        assert waiters.wait(leaf_hash(b"never"), 0.01, NEAR) is None
        assert threading.active_count() <= before + 1
    until(lambda: threading.active_count() == before, "the thread has ended")
