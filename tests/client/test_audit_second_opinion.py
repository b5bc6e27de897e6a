"""pymerkle as the second opinion: it agrees with us, and where its input differs it says so."""

import sys

import pytest

from quotary.client.finding import Finding
from quotary.client.second_opinion import cross_check, entries_of
from quotary.client.source import CHECKPOINT, Files
from quotary.errors import Unsupported
from tests.fakes.files import source_of
from tests.fakes.log import FakeLog


def published(releases: int) -> tuple[Files, bytes]:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation())
    log.append(*(log.maker.release(f"seed {number}") for number in range(releases)))
    log.close()
    source = source_of(log)
    return Files(source), source.files[CHECKPOINT]


@pytest.mark.parametrize("releases", [0, 9, 252, 300])
def test_pymerkle_agrees_on_roots_and_paths(releases: int) -> None:
    files, note = published(releases)
    assert cross_check(files, note, entries_of(files, note)) == releases + 4


@pytest.mark.parametrize("index", [0, 5, 255, 256, 299])
def test_an_input_that_differs_anywhere_is_a_finding(index: int) -> None:
    files, note = published(300)
    entries = list(entries_of(files, note))
    entries[index] += b" "
    with pytest.raises(Finding) as found:
        cross_check(files, note, entries)
    assert found.value.check == "cross-check"


def test_an_input_of_another_length_is_a_finding() -> None:
    files, note = published(5)
    entries = list(entries_of(files, note))
    with pytest.raises(Finding, match="size"):
        cross_check(files, note, entries[:-1])


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymerkle", None)
    files, note = published(1)
    with pytest.raises(Unsupported) as found:
        cross_check(files, note, [])
    assert found.value.next_command == "pip install 'quotary[audit]'"
