"""Sequencer, signer, witnesses and database under faults in any order: after every step there is one history.

A crash is a registry that is dropped where it stands and opened anew over the same files; a restored backup is a copy
of the database, of the signer's memory, or of both, put in the place of the newer ones.
"""

import shutil
import tempfile
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pysqlite3 import dbapi2 as pysqlite3

from quotary.errors import CannotTell, QuotaryError
from quotary.tlog.merkle import leaf_hash
from registry.config import Config
from registry.errors import ClockRefused, HeadMoved, RolledBack, StoreUnavailable
from registry.recover import Folder, recover_log
from registry.sequencer import Sequencer
from registry.store import open_store
from tests.fakes.authority import ORIGIN
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import local
from tests.fakes.network import URLS, Network, create_witnessed

MEMORY = "signed-head.json"
PARTS = ("log.db", f"keys/{MEMORY}")
# How far, in seconds, the registry's clock may be set from the right time.
JUMPS = (-864_000, -3600, -61, -5, 0, 172_800)


class Ambiguous(pysqlite3.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose next writing commit fails when told so, before it lands or after."""

    fault: str = ""

    def commit(self) -> None:
        fault, Ambiguous.fault = Ambiguous.fault, ""
        if fault != "before":
            super().commit()
        if fault:
            raise pysqlite3.OperationalError("disk I/O error")


class World(RuleBasedStateMachine):
    """One registry with three witnesses, two of which must cosign."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="quotary-world-"))
        self.network, self.history = Network(), History()
        self.number, self.backups = 0, 0
        self.config: Config = create_witnessed(self.folder, self.network)
        self.stack, self.log = ExitStack(), None

    @initialize()
    def start(self) -> None:
        self._open()
        self.history.acknowledge()

    def _open(self) -> None:
        """Start the registry, and let it ask what it asks before its first signature."""
        Ambiguous.fault = ""
        store = open_store(self.config.database_url, connection_class=Ambiguous)
        log = self.stack.enter_context(local(self.folder, transport=self.network, store=store))
        log.clock.at = self.network.clock.at
        log.sequencer.check_signer()
        try:
            log.publisher.check_witnesses(ORIGIN)
        except CannotTell:
            # It would wait for one of them.
            self.network.away.clear()
            log.publisher.check_witnesses(ORIGIN)
        self.log = log

    def _close(self) -> None:
        """Drop it where it stands."""
        Ambiguous.fault = ""
        self.stack.close()
        self.log = None

    def _do(self, step: str) -> None:
        """Do one step of a round; errors that a round survives make it read everything again."""
        assert self.log is not None
        sequencer = self.log.sequencer
        try:
            {"integrate": sequencer.integrate, "sign": sequencer.sign, "publish": self._publish}[step]()
        except (StoreUnavailable, ClockRefused):
            sequencer.load()

    def _publish(self) -> None:
        assert self.log is not None
        self.log.publisher.retry_now()
        self.log.publisher.publish()

    @rule(count=st.integers(1, 3), old=st.booleans())
    def submit(self, count: int, old: bool) -> None:
        """Admit entries, some of them once more."""
        assert self.log is not None
        first = max(0, self.number - 1) if old else self.number
        entries = [b'{"entry":%d}' % number for number in range(first, first + count)]
        self.number = first + count
        with suppress(StoreUnavailable):
            self.log.store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
            self.history.acknowledge(*entries)

    @rule(step=st.sampled_from(["integrate", "sign", "publish"]))
    def go_on(self, step: str) -> None:
        self._do(step)

    @rule()
    def whole_round(self) -> None:
        assert self.log is not None
        self.log.publisher.retry_now()
        self.log.loop.round()

    @rule()
    def crash_and_restart(self) -> None:
        self._close()
        self._open()

    @rule(fault=st.sampled_from(["before", "after"]))
    def the_next_commit_is_ambiguous(self, fault: str) -> None:
        Ambiguous.fault = fault

    @rule(seconds=st.sampled_from(JUMPS))
    def the_clock_jumps(self, seconds: int) -> None:
        assert self.log is not None
        self.log.clock.at = self.network.clock.at + timedelta(seconds=seconds)

    @rule(url=st.sampled_from(URLS))
    def a_witness_goes_away_or_comes_back(self, url: str) -> None:
        self.network.away ^= {url}

    @rule()
    def a_second_writer_takes_over(self) -> None:
        """Another sequencer leads; ours ends with HeadMoved at its next step, and is started again."""
        assert self.log is not None
        Ambiguous.fault = ""
        other = Sequencer(self.log.store, ORIGIN, self.log.signer, self.log.clock)
        other.take_over()
        with suppress(QuotaryError):
            other.integrate()
            other.sign()
        with pytest.raises(HeadMoved):
            self.log.sequencer.load()
        self._close()
        self._open()

    @rule()
    def back_up(self) -> None:
        self._close()
        target = self.folder / "backups" / str(self.backups)
        for part in PARTS:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.config.folder / part, target / part)
        self.backups += 1
        self._open()

    @precondition(lambda self: self.backups)
    @rule(which=st.integers(0, 99), parts=st.sets(st.sampled_from(PARTS), min_size=1))
    def restore_an_old_backup(self, which: int, parts: set[str]) -> None:
        """It goes on where nothing signed is missing, else it is refused before a signature and recovered."""
        self.network.away.clear()
        self._keep_a_mirror()
        before = self._memory_bytes()
        self._close()
        for part in sorted(parts):
            (self.config.folder / part).unlink()
            shutil.copyfile(
                self.folder / "backups" / str(which % self.backups) / part, self.config.folder / part
            )
        try:
            self._open()
        except RolledBack:
            assert self._memory_bytes() in (before, (self.config.folder / f"keys/{MEMORY}").read_bytes())
            self._close()
            self._recover()
            self._open()
        self._forget_what_waited()

    def _memory_bytes(self) -> bytes:
        return (self.config.keys / MEMORY).read_bytes()

    def _keep_a_mirror(self) -> None:
        """Publish what a witness has seen: a log whose witnesses are ahead of every mirror must not go on."""
        assert self.log is not None
        checkpoint, seen = self.config.public / "checkpoint", self._seen_by_witnesses()
        mirror = History()
        if checkpoint.exists():
            mirror.see(checkpoint.read_bytes())
        if not mirror.signed or max([*seen.signed, 0]) > max(mirror.signed):
            self._heal()
            self.one_history()

    def _heal(self) -> None:
        """Restart with every witness there, late enough for any time in the log, and publish what waits."""
        self.network.away.clear()
        self.network.clock.forward(max(JUMPS))
        self._close()
        self._open()
        assert self.log is not None
        for _ in range(2):
            self.log.publisher.retry_now()
            self.log.loop.round()

    def _seen_by_witnesses(self) -> History:
        seen = History()
        for url in URLS:
            for path in (self.folder / url[8:] / "seen").glob("*"):
                seen.see(path.read_bytes())
        return seen

    def _recover(self) -> None:
        with suppress(RolledBack):
            recover_log(self.config, Folder(self.config.public), self.network, False)
            return
        # What was signed and reached no witness is in no mirror, and may be forgotten.
        recover_log(self.config, Folder(self.config.public), self.network, True)

    def _forget_what_waited(self) -> None:
        """Entries that waited, and heads that nobody saw, are gone after a recovery (docs/operations.md)."""
        assert self.log is not None
        head = self.log.store.read.head()
        assert head is not None
        logged = set(self.log.store.read.leaf_hashes(0, head.size))
        waiting = {row.leaf_hash for row in self.log.store.read.waiting(10_000)}
        self.history.acknowledged &= logged | waiting
        seen = self._seen_by_witnesses()
        seen.see((self.config.public / "checkpoint").read_bytes())
        assert seen.signed.items() <= self.history.signed.items()
        newest = max([*seen.signed, 0])
        self.history.signed = {size: root for size, root in self.history.signed.items() if size <= newest}

    @invariant()
    def one_history(self) -> None:
        if self.log is None:
            return
        memory = self.config.keys / MEMORY
        seen = [self.folder / url[8:] / "seen" for url in URLS]
        self.history.see_all(self.log.store, memory, *seen)
        check(self.log.store.read, self.history, memory)

    def teardown(self) -> None:
        """At the end everything heals: whatever waits is published, and fsck finds nothing."""
        try:
            if self.log is not None:
                self._heal()
                assert self.log.store.read.waiting_count() == 0
                assert self.log.store.read.published_size() == fsck(self.config, self.log.store).entries
                self.one_history()
        finally:
            self._close()
            shutil.rmtree(self.folder)


# A step takes as long as a real restart does: to shrink a failure would take hours.
UNSHRUNK = (Phase.generate,)
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]
TestAFewWorlds = World.TestCase
TestAFewWorlds.settings = settings(
    max_examples=4,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=QUIET,
    database=None,
    phases=UNSHRUNK,
)


@pytest.mark.soak
class TestManyWorlds(World.TestCase):
    """The same for longer."""

    settings = settings(
        max_examples=100,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=QUIET,
        database=None,
        phases=UNSHRUNK,
    )
