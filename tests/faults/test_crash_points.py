"""A1 and A2: each file-system call of sequencing, signing, publishing and recovery killed, or failed, once."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from quotary.errors import QuotaryError
from quotary.net.transport import HTTP
from quotary.tlog.merkle import leaf_hash
from registry import flush
from registry.backup import make_backup
from registry.config import Config, load_config
from registry.identity import load_log_keys
from registry.recover import Folder, recover_log
from registry.setup import WitnessLine, create_registry, write_policy
from registry.signer import Signer
from registry.signing import SignerClient
from registry.store import open_store
from registry.witness_app import create_witness
from tests.fakes.authority import NOW, Authority
from tests.fakes.cosigner import Cosigner, cosigning
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import Clock, assemble, config_of, local
from tests.fakes.processes import until
from tests.fakes.reboot import restart_machine
from tests.fakes.signer import served
from tests.fakes.strace import RAISED, UNTOUCHED, Point, Run, Work, forked, points, record, run
from tests.faults import work

MEMORY = "signed-head.json"
KILL = "signal=KILL"
ERRORS = ("EIO", "ENOSPC", "EINTR")


@pytest.fixture(scope="module")
def witness() -> Iterator[Cosigner]:
    with cosigning() as found:
        yield found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, witness: Cosigner) -> Path:
    """A stopped registry of some 250 entries with its witness, a mirror and a backup."""
    folder = tmp_path_factory.mktemp("template")
    config = config_of(folder / "log")
    public = create_registry(config, [], Authority().genesis(), NOW)
    key = create_witness(folder / "witness", "w.example.org", [public.log[0]])
    write_policy(config.policy, public, [WitnessLine(witness.url, key.verifier)], None)
    witness.folder = folder / "witness"
    with local(folder, transport=HTTP()) as log:
        log.append(*work.FILLER)
        make_backup(config, folder / "backup")
        shutil.copytree(config.public, folder / "mirror")
    return folder


def seen_before(template: Path) -> History:
    history, config = History(), load_config(template / "log")
    store = open_store(config.database_url)
    history.acknowledge(*work.FILLER)
    history.see_all(store, config.keys / MEMORY, template / "witness" / "seen")
    store.close()
    return history


@dataclass(frozen=True, slots=True)
class Scenario:
    """A process whose calls fail, in a copy of the template that ``prepare`` has changed."""

    work: Work
    prepare: Callable[[Path], None] = lambda _: None
    is_repair: bool = False

    def run(self, place: Path, strace: Sequence[str]) -> Run:
        if self.work is work.sign:
            return drive_signer(place, strace)
        with signing(load_config(place / "log")) if not self.is_repair else nullcontext():
            return run(self.work, place, strace)


def lose_database(place: Path) -> None:
    for path in (place / "log").glob("log.db*"):
        path.unlink()


SCENARIOS = {
    "sequence": Scenario(work.sequence),
    "sign": Scenario(work.sign),
    "recover": Scenario(work.recover, lose_database, is_repair=True),
    "restore": Scenario(work.restore, is_repair=True),
}


@contextmanager
def signing(config: Config) -> Iterator[None]:
    load = lambda: load_log_keys(config.keys, config.origin)  # noqa: E731  # read again at each reload
    with served(Signer(config.origin, load, config.keys / MEMORY, Clock()), config.socket):
        yield


def drive_signer(place: Path, strace: Sequence[str]) -> Run:
    """Have a signer under strace asked for two heads, by a sequencer that nothing happens to."""
    config, told = load_config(place / "log"), []
    with forked(work.sign, place, strace) as process:
        until(lambda: config.socket.exists() or process.process.exitcode is not None, "a signer or its end")
        with suppress(QuotaryError):
            log = assemble(
                config,
                open_store(config.database_url),
                SignerClient(config.socket),
                Clock(),
                HTTP(),
                Authority(),
            )
            for entries in work.ROUNDS:
                log.store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
                told.append(("acknowledged", entries))
                log.loop.round()
            log.store.close()
        process.process.join(0.3)
        code = process.process.exitcode
    return Run(0 if code is None else code, tuple(told))


class Bench:
    """Runs scenarios in copies of the template, and looks at what is left."""

    def __init__(self, template: Path, witness: Cosigner, place: Path) -> None:
        self._template = template
        self._witness = witness
        self._place = place
        self._number = 0

    def points(self, name: str) -> list[Point]:
        """Every call of a scenario that nothing happens to."""
        place = self._fresh(SCENARIOS[name])
        trace = place / "trace"
        assert SCENARIOS[name].run(place, record(trace)).code == 0
        return points(place / "log", trace)

    def try_point(self, name: str, point: Point, fault: str) -> Run:
        """Let one call fail, and demand that the registry goes on with nothing lost."""
        place = self._fresh(SCENARIOS[name])
        return self.survive(name, place, SCENARIOS[name].run(place, point.inject(place / "log", fault)))

    def survive(self, name: str, place: Path, found: Run) -> Run:
        history = seen_before(self._template)
        for what, entries in found.told:
            if what == "acknowledged":
                history.acknowledge(*entries)
        for file in restart_machine(place):
            flush.withdraw(file)
        if SCENARIOS[name].is_repair:
            self._repair_again(place, history)
        config = load_config(place / "log")
        look(config, place, history)
        with local(place, transport=HTTP()) as log:
            log.sequencer.check_signer()
            log.publisher.check_witnesses(config.origin)
            log.append(b"one more")
            history.acknowledge(b"one more")
            check(log.store.read, history, config.keys / MEMORY)
            assert log.store.read.waiting_count() == 0
            assert log.store.read.published_size() == fsck(config, log.store).entries
        shutil.rmtree(place)
        return found

    def place_for(self, name: str) -> Path:
        return self._fresh(SCENARIOS[name])

    def _repair_again(self, place: Path, history: History) -> None:
        """A registry that can be opened after half a repair is right; else the same command ends the repair."""
        with suppress(QuotaryError):
            look(load_config(place / "log"), place, history)
        recover_log(load_config(place / "log"), Folder(place / "mirror"), HTTP(), False)

    def _fresh(self, scenario: Scenario) -> Path:
        self._number += 1
        place = self._place / str(self._number)
        shutil.copytree(self._template, place, ignore=shutil.ignore_patterns("*.sock"))
        scenario.prepare(place)
        self._witness.folder = place / "witness"
        return place


def look(config: Config, place: Path, history: History) -> None:
    """Open what a crash left, and compare it with everything that was said or shown before."""
    store = open_store(config.database_url)
    try:
        history.see_all(store, config.keys / MEMORY, place / "witness" / "seen")
        if (config.public / "checkpoint").exists():
            history.see((config.public / "checkpoint").read_bytes())
        check(store.read, history, config.keys / MEMORY)
    finally:
        store.close()


@pytest.fixture
def bench(template: Path, witness: Cosigner, tmp_path: Path) -> Bench:
    return Bench(template, witness, tmp_path)


def spread(found: list[Point], count: int) -> list[Point]:
    """Some of the points, from the first to the last."""
    return [found[i * (len(found) - 1) // (count - 1)] for i in range(count)]


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a1_a_process_killed_at_a_file_system_call_loses_nothing(bench: Bench, name: str) -> None:
    found = bench.points(name)
    assert len(found) >= 10
    for point in spread(found, 3):
        assert bench.try_point(name, point, KILL).killed, point


@pytest.mark.soak
def test_a1_a_process_killed_at_each_file_system_call_loses_nothing(bench: Bench) -> None:
    killed = [bench.try_point(name, point, KILL).killed for name in SCENARIOS for point in bench.points(name)]
    print(f"{len(killed)} points, {sum(killed)} of them reached, 0 violations")
    assert sum(killed) >= 150


def named_error(found: Run) -> bool:
    """It went on, or ended with an error that has a name."""
    return found.code in (0, RAISED)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a2_a_file_system_call_that_fails_is_a_named_error_and_loses_nothing(bench: Bench, name: str) -> None:
    for point, error in zip(spread(bench.points(name), len(ERRORS)), ERRORS, strict=True):
        assert named_error(bench.try_point(name, point, f"error={error}")), point


@pytest.mark.soak
@pytest.mark.parametrize("error", ERRORS)
def test_a2_each_file_system_call_that_fails_is_a_named_error_and_loses_nothing(
    bench: Bench, error: str
) -> None:
    for name in SCENARIOS:
        for point in bench.points(name):
            assert named_error(bench.try_point(name, point, f"error={error}")), point


FLUSHES = ("fsync", "fdatasync")


@pytest.mark.parametrize(("name", "path"), [("sequence", "log.db-wal"), ("sign", "keys")])
def test_t22_a_process_whose_flush_failed_ends_and_does_not_try_again(
    bench: Bench, name: str, path: str
) -> None:
    """Tried again, the flush could succeed without the data."""
    found = [point for point in bench.points(name) if point.call in FLUSHES and point.path.startswith(path)]
    assert len(found) >= 2
    # The last ones are made while SQLite closes, which reports none of them and has lost nothing by them.
    for point in (found[0], found[len(found) // 2]):
        ended = bench.try_point(name, point, "error=EIO")
        assert ended.code == RAISED, point
        if name == "sequence":
            assert ended.told[-1] == ("raised", "FlushFailed"), point


def cut_short(bench: Bench, name: str, length: int) -> None:
    """Cut every write that goes beyond ``length`` bytes of its file."""
    place = bench.place_for(name)
    scenario = replace(SCENARIOS[name], work=partial(work.limited, SCENARIOS[name].work, length))
    assert named_error(bench.survive(name, place, scenario.run(place, UNTOUCHED))), length


@pytest.mark.parametrize("name", ["recover", "sequence"])
def test_a2_a_write_that_is_cut_short_is_noticed(bench: Bench, name: str) -> None:
    for length in (700, 70_001):
        cut_short(bench, name, length)


@pytest.mark.soak
def test_a2_each_length_of_a_cut_write_is_noticed(bench: Bench) -> None:
    source = random.Random(2)
    for name in ("recover", "restore", "sequence"):
        for _ in range(50):
            cut_short(bench, name, int(2 ** source.uniform(0, 20)))
