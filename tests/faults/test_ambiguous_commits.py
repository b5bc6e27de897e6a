"""A8: a commit that reports an error may have landed; every decision after it is taken from what is read again."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as pysqlite3

from quotary.net.transport import Offline
from quotary.tlog.merkle import leaf_hash
from registry.errors import StoreUnavailable
from registry.recover import Folder, recover_log
from registry.reindex import reindex
from registry.sequencer import Sequencer
from registry.setup import create_registry
from registry.store import Store, Writer, open_store
from tests.fakes.authority import NOW, ORIGIN, Authority
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import Local, config_of, local

MEMORY = "signed-head.json"
WRITES = {name for name in vars(Writer) if not name.startswith("_")} - {"check"}
# Those write into a database that nobody uses yet, and that is thrown away after any error.
NEW_DATABASE = {"create", "load"}


class Ambiguous(pysqlite3.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose next commit but ``countdown`` fails, before it lands or after."""

    countdown: int = -1
    after: bool = False

    def commit(self) -> None:
        Ambiguous.countdown -= 1
        fails = Ambiguous.countdown == -1
        if not fails or self.after:
            super().commit()
        if fails:
            raise pysqlite3.OperationalError("disk I/O error")


class Counting(Writer):
    """Counts for each write how often it failed before and after landing."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.engine)
        self.failed: Counter[tuple[str, bool]] = Counter()

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        return self._counted(name, found) if name in WRITES else found

    def _counted(self, name: str, write: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            try:
                return write(*arguments)
            except StoreUnavailable:
                self.failed[name, Ambiguous.after] += 1
                raise

        return call


def submit(log: Local, history: History, entry: bytes) -> None:
    """What admission does: an entry counts as acknowledged only where the write said so."""
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
    history.acknowledge(entry)


def start_again(log: Local) -> None:
    """A sequencer that fails to take over ends, and is started once more."""
    try:
        start(log)
    except StoreUnavailable:
        start(log)


def start(log: Local) -> None:
    log.loop._sequencer = log.sequencer = Sequencer(log.store, ORIGIN, log.signer, log.clock)
    log.sequencer.take_over()


def actions(log: Local, history: History, source: random.Random) -> Iterator[Callable[[], object]]:
    """Do everything that writes, for ever; some entries are submitted again after they were logged."""
    number = 0
    while True:
        number += 1
        entry = b'{"entry":%d}' % (number if source.random() < 0.7 else source.randint(1, number))
        yield lambda entry=entry: submit(log, history, entry)
        yield log.loop.round
        if number % 5 == 0:
            yield lambda: reindex(log.store)
        if number % 3 == 0:
            yield lambda: start_again(log)


def fail_many(folder: Path, wanted: int, seed: int = 8) -> Counter[tuple[str, bool]]:
    """Let ``wanted`` commits fail, check after each, and give what failed."""
    with local(folder):
        pass
    opened = open_store(config_of(folder / "log").database_url, connection_class=Ambiguous)
    store = Store(opened.engine, opened.read, writer := Counting(opened))
    source, history = random.Random(seed), History()
    with local(folder, store=store) as log:
        memory = log.config.keys / MEMORY
        for action in actions(log, history, source):
            Ambiguous.countdown, Ambiguous.after = source.randrange(3), source.random() < 0.5
            with suppress(StoreUnavailable):
                action()
            Ambiguous.countdown = -1
            log.publisher.retry_now()
            history.see_all(store, memory)
            check(store.read, history, memory)
            if sum(writer.failed.values()) >= wanted:
                break
        start_again(log)
        log.loop.round()
        assert store.read.waiting_count() == 0
        assert store.read.published_size() == fsck(log.config, store).entries
        check(store.read, history, memory)
    return writer.failed


def expected() -> set[tuple[str, bool]]:
    return {(name, after) for name in WRITES - NEW_DATABASE for after in (False, True)}


def test_a8_no_ambiguous_commit_leads_to_a_wrong_decision(tmp_path: Path) -> None:
    assert set(fail_many(tmp_path, 60)) == expected()


@pytest.mark.soak
def test_a8_a_thousand_ambiguous_commits_lead_to_no_wrong_decision(tmp_path: Path) -> None:
    assert set(fail_many(tmp_path, 1000)) == expected()


@pytest.mark.parametrize("after", [False, True])
def test_a8_a_registry_whose_first_write_is_ambiguous_is_not_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    config, create = config_of(tmp_path / "log"), Writer.create

    def ambiguous(self: Writer, head: object) -> None:
        if after:
            create(self, head)  # type: ignore[arg-type]
        raise StoreUnavailable("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "create", ambiguous)
        with pytest.raises(StoreUnavailable):
            create_registry(config, [], Authority().genesis(), NOW)
    assert not config.folder.exists()
    create_registry(config, [], Authority().genesis(), NOW)
    with local(tmp_path) as log:
        log.loop.round()
        assert log.store.read.published_size() == 2


@pytest.mark.parametrize("write", sorted(NEW_DATABASE))
@pytest.mark.parametrize("after", [False, True])
def test_a8_a_recovery_with_an_ambiguous_write_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, after: bool
) -> None:
    with local(tmp_path) as log:
        log.append(b"a", b"b")
    config, mirror, whole = log.config, Folder(log.config.public), getattr(Writer, write)

    def ambiguous(self: Writer, *arguments: object) -> None:
        if after:
            whole(self, *arguments)
        raise StoreUnavailable("disk I/O error")

    before = (config.folder / "log.db").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Writer, write, ambiguous)
        with pytest.raises(StoreUnavailable):
            recover_log(config, mirror, Offline(), False)
    assert (config.folder / "log.db").read_bytes() == before
    assert recover_log(config, mirror, Offline(), False).published == 4
