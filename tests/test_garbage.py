"""Python's collector of cycles does not get in the way of a batch."""

import gc
from collections.abc import Iterator

import pytest

from quotary.garbage import YOUNG_OBJECTS, collect_rarely, collected_rarely


@pytest.fixture
def collected() -> Iterator[None]:
    before = gc.get_threshold()
    collect_rarely()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def collections() -> int:
    return int(gc.get_stats()[0]["collections"])


@pytest.mark.usefixtures("collected")
def test_cycles_are_looked_for_once_in_ten_thousand_objects_that_stay() -> None:
    before = collections()
    kept: list[list[int]] = [[] for _ in range(10 * YOUNG_OBJECTS)]
    assert 8 <= collections() - before <= 12
    assert len(kept) == 10 * YOUNG_OBJECTS


@pytest.mark.usefixtures("collected")
def test_what_was_there_at_the_start_is_not_looked_at_again() -> None:
    assert gc.get_freeze_count() > YOUNG_OBJECTS
    assert len(gc.get_objects()) < YOUNG_OBJECTS


def test_for_the_time_of_an_audit_only_the_collector_is_asked_less_often() -> None:
    before = gc.get_threshold()
    with collected_rarely():
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
    assert gc.get_threshold() == before
