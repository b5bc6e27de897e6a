"""fsck beside a registry that grows: what is added while it reads is no contradiction."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from quotary.tlog.policy import TlogPolicy
from registry.fsck import check_store
from registry.store import Head, Published, Reader, Signed
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Local, local
from tests.fakes.processes import command, start_log

T = TypeVar("T")


class Growing(Reader):
    """The real reader of a log that grows right after each of the three questions about its ends."""

    def __init__(self, log: Local) -> None:
        super().__init__(log.store.engine)
        self._log = log

    def published(self) -> Published | None:
        return self._then_grow(super().published)

    def all_signed(self) -> list[Signed]:
        return self._then_grow(super().all_signed)

    def head(self) -> Head | None:
        return self._then_grow(super().head)

    def _then_grow(self, ask: Callable[[], T]) -> T:
        found = ask()
        self._log.append(self._log.authority.release(f"r{self._log.store.read.published_size()}"))
        return found


def test_a_log_that_grows_while_it_is_checked_is_equal_all_the_same(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        log.append(log.authority.allocation(), log.authority.delegation())
        size = log.store.read.published_size()
        policy = TlogPolicy.parse(log.config.policy.read_text("utf-8"))
        found = check_store(Growing(log), ORIGIN, policy, log.config.public)
        assert found.published == size
        assert size < found.entries < log.store.read.published_size()


def test_the_command_checks_a_registry_that_runs(tmp_path: Path) -> None:
    log = start_log(tmp_path)
    try:
        made = log.authority
        log.submit(made.allocation(), made.delegation(), made.release("r1"))
        done = command("fsck", "--dir", str(log.folder))
        assert (done.returncode, done.stdout.startswith("equal: ")) == (0, True), done.stderr
    finally:
        log.stop()
