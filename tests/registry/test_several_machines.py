"""Several machines over one PostgreSQL: each takes entries, one sequences, and another one takes its place (A7)."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

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
from tests.fakes.postgres import folder_of
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


def test_a7_each_machine_takes_entries_and_a_stopped_or_killed_sequencer_is_replaced(
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


@pytest.mark.soak
def test_a9_a_registry_survives_the_loss_of_its_primary(tmp_path: Path, postgres_programs: Path) -> None:
    """The process's half: neither its web nor its sequencer has to be started by hand."""
    with ExitStack() as stack:
        primary, standby = (stack.enter_context(folder_of(postgres_programs)) for _ in range(2))
        primary.create()
        primary.start()
        primary.execute("CREATE DATABASE log")
        standby.copy_of(primary, "second")
        standby.start()
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'second'")
        primary.execute("SELECT pg_reload_conf()")
        url = f"postgresql+psycopg://postgres@/log?host={primary.folder}&host={standby.folder}"
        authority = Authority(origin=ORIGIN, now=datetime.now(UTC).replace(microsecond=0))
        place = (tmp_path / "log", ORIGIN, f"{url}&target_session_attrs=read-write", "127.0.0.1:0")
        config = Config(*place, 0.1, 2.0, 600, workers=1, threads=4)
        create_registry(config, [], authority.genesis(), datetime.now(UTC))
        server = Server(["serve", "--dir", str(config.folder)], tmp_path / "stderr").start()
        log = Log(config.folder, server, server, authority)
        stack.callback(log.stop_registry)
        log.wait_ready()
        assert log.submit(authority.allocation(), authority.delegation()) == [2, 4]
        primary.kill()
        until(lambda: log.request("GET", "/readyz").status == 503, "it knows that the database is gone")
        standby.promote()
        until(lambda: log.request("GET", "/readyz").status == 200, "it found the new primary", 60)
        leads(log, 2)
        release = authority.release("r1")
        until(
            lambda: log.request("POST", "/api/v1/entries", release).status in (200, 202), "it takes entries"
        )
        assert log.submit(release) == [6]
