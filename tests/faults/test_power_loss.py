"""A3: whatever a power cut leaves of the files, nothing that was acknowledged or signed is lost."""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from quotary.errors import QuotaryError
from registry.config import load_config
from registry.setup import create_registry
from registry.store import open_store
from tests.fakes.authority import NOW, Authority
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import config_of, local
from tests.fakes.powerloss import RECORD, Files, Moment, replay
from tests.fakes.strace import run
from tests.faults import work

MEMORY = "signed-head.json"
FILES = ("log.db", "log.db-wal", "log.db-journal", "keys/signed-head.json", "keys/.signed-head.json.new")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that was made and never ran."""
    folder = tmp_path_factory.mktemp("template")
    create_registry(config_of(folder / "log"), [], Authority().genesis(), NOW)
    return folder


def record(template: Path, place: Path, mistake: str, rounds: int) -> Iterator[tuple[Moment, History]]:
    """Let a log grow, and give what each power cut could leave, with what the world knew by then."""
    shutil.copytree(template, place)
    folder, trace = place / "log", place / "trace"
    before = {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}
    found = run(partial(work.power, mistake, rounds), place, ["-o", str(trace), *RECORD])
    assert found.code == 0, found
    history = History()
    for moment in replay(trace, folder, before):
        if moment.told is not None:
            learn(history, *moment.told)
        yield moment, history


def learn(history: History, what: str, content: object) -> None:
    match what, content:
        case "acknowledged", list():
            history.acknowledge(*content)
        case "asked", (int() as size, bytes() as root):
            history.asked[size] = root
        case "signed", bytes():
            history.see(content)


def restore(template: Path, place: Path, files: Files) -> None:
    """Put the registry together again, as it is found after the power came back."""
    shutil.copytree(template, place)
    for name in FILES:
        (place / "log" / name).unlink(missing_ok=True)
    for name, data in files.items():
        (place / "log" / name).write_bytes(data)


def survives(place: Path, history: History) -> None:
    config = load_config(place / "log")
    store = open_store(config.database_url)
    try:
        check(store.read, history, config.keys / MEMORY)
        fsck(config, store)
    finally:
        store.close()


def grows(place: Path, history: History) -> None:
    with local(place) as log:
        log.sequencer.check_signer()
        log.append(b"one more")
        check(log.store.read, history, log.config.keys / MEMORY)
        assert log.store.read.published_size() == fsck(log.config, log.store).entries


def cut(template: Path, place: Path, rounds: int, every: int) -> int:
    """Try each ``every``-th state, let a log grow from some of them, and give the number of states."""
    numbers = itertools.count()
    for moment, history in record(template, place / "recorded", "none", rounds):
        for files in moment.states:
            if (number := next(numbers)) % every == 0:
                restore(template, place / "found", files)
                survives(place / "found", history)
                if number % (10 * every) == 0:
                    grows(place / "found", history)
                shutil.rmtree(place / "found")
    return next(numbers)


def test_a3_no_power_cut_loses_what_was_acknowledged_or_signed(template: Path, tmp_path: Path) -> None:
    assert cut(template, tmp_path, rounds=3, every=14) >= 1000


@pytest.mark.soak
def test_a3_none_of_two_thousand_states_after_a_power_cut_is_bad(template: Path, tmp_path: Path) -> None:
    found = cut(template, tmp_path, rounds=6, every=1)
    print(f"{found} states after a power cut, 0 of them bad")
    assert found >= 2000


@pytest.mark.parametrize("mistake", sorted(set(work.MISTAKES) - {"none"}))
def test_a3_the_harness_finds_each_planted_mistake(template: Path, tmp_path: Path, mistake: str) -> None:
    # What a mistake loses is missed at once where something was told: those moments are enough.
    found = record(template, tmp_path / "recorded", mistake, rounds=1)
    after_telling = ((moment.states, history) for moment, history in found if moment.told is not None)
    assert any(is_bad(template, tmp_path / "found", *moment) for moment in after_telling)


def is_bad(template: Path, place: Path, states: Iterable[Files], history: History) -> bool:
    for files in states:
        restore(template, place, files)
        try:
            survives(place, history)
        except (AssertionError, QuotaryError, SQLAlchemyError):
            return True
        shutil.rmtree(place)
    return False
