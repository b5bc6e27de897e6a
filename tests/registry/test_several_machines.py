"""Several machines over one PostgreSQL: each takes entries, one sequences, and another one takes its place (A7)."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from quotary.net.transport import HTTP
from quotary.tlog.policy import TlogPolicy
from registry.config import Config, load_config
from registry.doctor import examine
from registry.fsck import check_store
from registry.looks import Surroundings
from registry.setup import create_registry
from registry.store import open_store
from tests.fakes.authority import ORIGIN, Authority
from tests.fakes.processes import Log, Server, until


@pytest.fixture(scope="module")
def machines(
    tmp_path_factory: pytest.TempPathFactory, new_postgres: Callable[[], str]
) -> Iterator[tuple[Log, Log]]:
    """Two whole registries; the second one reaches the first one's signer, as through a forwarded socket."""
    tmp_path = tmp_path_factory.mktemp("machines")
    authority = Authority(origin=ORIGIN, now=datetime.now(UTC).replace(microsecond=0))
    one, two = tmp_path / "one", tmp_path / "two"
    config = Config(one, ORIGIN, new_postgres(), "127.0.0.1:0", 0.1, 2.0, 600, workers=1, threads=4)
    create_registry(config, [], authority.genesis(), datetime.now(UTC))
    (two / "keys").mkdir(parents=True)
    for name in ("registry.toml", "policy.tlog", "keys/public"):
        shutil.copy(one / name, two / name)
    (two / "signer.sock").symlink_to(one / "signer.sock")
    words = {"one": ["serve", "--dir", str(one)], "two": ["serve", "--dir", str(two), "--without", "signer"]}
    servers = [Server(found, tmp_path / f"{name}.stderr").start() for name, found in words.items()]
    logs = [
        Log(folder, server, server, authority) for folder, server in zip((one, two), servers, strict=True)
    ]
    try:
        for log in logs:
            log.wait_ready()
        yield logs[0], logs[1]
    finally:
        for server in reversed(servers):
            server.stop()


def leads(log: Log, times: int = 1) -> None:
    until(lambda: log.registry.log().count('"sequencer.leads"') >= times, "a sequencer leads", 60)


def test_each_machine_takes_entries_and_a_stopped_or_killed_sequencer_is_replaced(
    machines: tuple[Log, Log],
) -> None:
    one, two = machines
    made = one.authority
    assert one.submit(made.allocation(), made.delegation()) == [2, 4]
    assert two.submit(made.release("r1")) == [6]
    until(lambda: '"sequencer.stands_by"' in two.registry.log(), "the second one stands by")

    (stopped,) = one.registry.children("sequence")
    os.kill(stopped, signal.SIGSTOP)
    leads(two)
    release = made.release("r2")
    assert two.submit(release) == one.submit(release) == [8]

    os.kill(stopped, signal.SIGCONT)
    until(lambda: stopped not in one.registry.children("sequence"), "who was stopped ends", 60)
    until(lambda: one.registry.log().count('"sequencer.stands_by"') >= 1, "and stands by again", 60)
    assert one.submit(made.release("r3")) == [10]

    for _ in range(2):
        two.registry.kill_child("sequence")
        until(lambda: two.registry.children("sequence"), "it is started again")
    release = made.release("r4")
    assert one.submit(release) == two.submit(release) == [12]
    assert two.submit(made.release("r5")) == [14]

    found = load_config(one.folder)
    store = open_store(found.database_url)
    head = store.read.head()
    assert head is not None
    assert head.epoch >= 3
    policy = TlogPolicy.parse(one.policy_text)
    checked = check_store(store.read, ORIGIN, policy)
    assert (checked.entries, checked.published) == (16, 16)
    store.close()
    for log in machines:
        assert "signer.refused" not in log.registry.log()
        assert "rolled back" not in log.registry.log()


def test_a_machine_without_the_keys_is_examined_without_them(machines: tuple[Log, Log]) -> None:
    config = load_config(machines[1].folder)
    around = Surroundings(HTTP(), lambda: datetime.now(UTC))
    without = replace(around, without=["signer"])
    keys = {"log keys, and the verifier keys beside them", "the signer's memory"}
    assert {found.name: found.problem for found in examine(config, without) if found.state == "wrong"} == {}
    assert {found.name for found in examine(config, without) if found.state == "not checked"} >= keys
    assert {found.name for found in examine(config, around) if found.state == "wrong"} == keys
    assert replace(config, database="sqlite:///log.db").shares_database is False
