"""A7 on SQLite: two sequencers at once, and one that slept through another's reign; the log has one history."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from registry.config import load_config
from registry.identity import load_log_keys
from registry.setup import create_registry
from registry.signer import Signer
from registry.signing import SignerClient
from registry.store import open_store
from tests.fakes.authority import NOW, Authority
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import Clock, assemble, config_of, local
from tests.fakes.processes import until
from tests.fakes.signer import served
from tests.fakes.strace import RAISED, UNTOUCHED, Forked, forked
from tests.faults import work

MEMORY = "signed-head.json"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two entries."""
    folder = tmp_path_factory.mktemp("template")
    create_registry(config_of(folder / "log"), [], Authority().genesis(), NOW)
    with local(folder) as log:
        log.loop.round()
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the log, with its signer running."""
    shutil.copytree(template, tmp_path / "place", ignore=shutil.ignore_patterns("*.sock"))
    config = load_config(tmp_path / "place" / "log")
    load = lambda: load_log_keys(config.keys, config.origin)  # noqa: E731  # read again at each reload
    with served(Signer(config.origin, load, config.keys / MEMORY, Clock()), config.socket):
        yield tmp_path / "place"


def one_history(place: Path, history: History) -> None:
    config = load_config(place / "log")
    store = open_store(config.database_url)
    log = assemble(config, store, SignerClient(config.socket), Clock(), None, Authority())
    log.sequencer.check_signer()
    log.append(b"one more")
    history.acknowledge(b"one more")
    history.see_all(store, config.keys / MEMORY)
    check(store.read, history, config.keys / MEMORY)
    assert store.read.waiting_count() == 0
    assert store.read.published_size() == fsck(config, store).entries
    store.close()


def stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] in "Tt"


def second_reign(place: Path, history: History) -> None:
    """Take over from the one that sleeps, and publish."""
    config = load_config(place / "log")
    store = open_store(config.database_url)
    log = assemble(config, store, SignerClient(config.socket), Clock(), None, Authority())
    log.sequencer.check_signer()
    log.append(b"the second's")
    history.acknowledge(b"the second's")
    history.see_all(store, config.keys / MEMORY)
    assert store.read.published_size() == fsck(config, store).entries
    store.close()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", work.STEPS)
def test_a7_a_leader_that_slept_through_anothers_reign_ends_and_forks_nothing(
    place: Path, step: str, after: bool
) -> None:
    history = History()
    with forked(partial(work.stopping, step, after), place, UNTOUCHED) as sleeper:
        assert sleeper.connection.recv() == ("acknowledged", [b"the first's"])
        assert sleeper.connection.recv() == ("stopped", step)
        history.acknowledge(b"the first's")
        pid = sleeper.process.pid
        assert pid is not None
        until(lambda: stands_still(pid), "the leader sleeps")
        second_reign(place, history)
        os.kill(pid, signal.SIGCONT)
        found = sleeper.listen()
    assert found.code == RAISED, found
    assert found.told[-1] == ("raised", "HeadMoved")
    one_history(place, history)


def races(place: Path, count: int, pauses: int) -> dict[str, int]:
    """Let two processes take the log over ``count`` times each, some of their time asleep."""
    source, outcomes, history = random.Random(7), {"won": 0, "lost": 0}, History()
    with (
        forked(partial(work.race, "a", count), place, UNTOUCHED) as one,
        forked(partial(work.race, "b", count), place, UNTOUCHED) as two,
    ):
        for _ in range(pauses):
            pause(*source.sample([one, two], 2))
        for process in (one, two):
            found = process.listen()
            assert found.code == 0, found.told[-1]
            for what, content in found.told:
                if what == "acknowledged":
                    history.acknowledge(*content)
                else:
                    outcomes[what] += 1
    one_history(place, history)
    return outcomes


def pause(sleeper: Forked, other: Forked) -> None:
    """Stop a process wherever it is, until the other has said something or cannot go on either."""
    if sleeper.process.exitcode is None and sleeper.process.pid is not None:
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        other.hear(0.2)
        os.kill(sleeper.process.pid, signal.SIGCONT)


def test_a7_two_sequencers_that_race_make_one_history(place: Path) -> None:
    outcomes = races(place, count=15, pauses=0)
    assert outcomes["won"] > 0


@pytest.mark.soak
def test_a7_a_thousand_races_with_sleeping_leaders_make_one_history(place: Path) -> None:
    outcomes = races(place, count=500, pauses=200)
    print(f"1,000 races: {outcomes['won']} won, {outcomes['lost']} lost, 0 forks")
    assert outcomes["lost"] > 0
