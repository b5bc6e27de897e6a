"""A7, A8 and A9 on PostgreSQL: two sequencers, commits cut off, and a primary that is lost."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url

from quotary.tlog.merkle import leaf_hash
from registry.errors import HeadMoved, StoreUnavailable
from registry.sequencer import Sequencer
from registry.store import Store, open_store
from tests.fakes.authority import ORIGIN
from tests.fakes.cut import cutting
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import Local, local
from tests.fakes.postgres import Server, folder_of
from tests.fakes.processes import until
from tests.faults.test_ambiguous_commits import MEMORY, actions, start, start_again


def both(*works: Callable[[], object]) -> list[BaseException | None]:
    """Run at the same time, and give what each raised."""
    barrier, raised = threading.Barrier(len(works)), [None] * len(works)

    def run(number: int, work: Callable[[], object]) -> None:
        barrier.wait(30)
        try:
            work()
        except HeadMoved as error:
            raised[number] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


def race(log: Local, stores: list[Store], kind: str) -> int:
    """Let two sequencers take the same entry at the same time, and give how many found that they were too late.

    Who comes long after the other finds nothing to do; nobody logs the entry again.
    """
    one, two = (Sequencer(store, ORIGIN, log.signer, log.clock) for store in stores)
    size = head_size(log)
    if kind == "both take over":
        raised = both(lambda: work(one, take_over=True), lambda: work(two, take_over=True))
    else:
        one.take_over()
        if kind == "one was replaced":
            two.take_over()
        else:
            two._head = one._head
            two.load()
        raised = both(lambda: work(one), lambda: work(two))
        assert kind == "both hold the lead" or raised[1] is None
    assert None in raised
    assert head_size(log) == size + 2
    return 2 - raised.count(None)


def work(sequencer: Sequencer, *, take_over: bool = False) -> None:
    if take_over:
        sequencer.take_over()
    sequencer.integrate()
    sequencer.sign()


def head_size(log: Local) -> int:
    head = log.store.read.head()
    assert head is not None
    return head.size


KINDS = ("both take over", "one was replaced", "both hold the lead")


def run_races(folder: Path, url: str, count: int, check_each: int) -> None:
    history, source, late = History(), random.Random(7), 0
    with local(folder, database=url) as log, closing(open_store(url)) as one, closing(open_store(url)) as two:
        memory = log.config.keys / MEMORY
        log.loop.round()
        for number in range(count):
            entry = b'{"entry":%d}' % number
            log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
            history.acknowledge(entry)
            late += race(log, [one, two], source.choice(KINDS))
            if number % check_each == 0:
                history.see_all(log.store, memory)
                check(log.store.read, history, memory)
        start(log)
        log.loop.round()
        history.see_all(log.store, memory)
        check(log.store.read, history, memory)
        assert fsck(log.config, log.store).entries == 2 + 2 * count
        assert late > count // 4, "hardly any two of them met"


def test_a7_of_two_sequencers_on_postgresql_only_one_ever_logs_an_entry(
    tmp_path: Path, new_postgres: Callable[[], str]
) -> None:
    run_races(tmp_path, new_postgres(), 50, 5)


@pytest.mark.soak
def test_a7_a_thousand_races_on_postgresql_fork_nothing(
    tmp_path: Path, new_postgres: Callable[[], str]
) -> None:
    run_races(tmp_path, new_postgres(), 1000, 100)


def cut_many(folder: Path, server: Server, url: str, wanted: int, check_each: int) -> None:
    """Cut connections at their COMMIT, before it lands and after, in everything that writes."""
    source, history, done = random.Random(8), History(), 0
    with local(folder, database=url):
        pass
    with cutting(server.folder) as cut:
        database = make_url(url).database
        store = open_store(f"postgresql+psycopg://postgres@/{database}?host={cut.folder}")
        with local(folder, database=url, store=store) as log:
            memory = log.config.keys / MEMORY
            for number, action in enumerate(actions(log, history, source)):
                cut.countdown, cut.lands = source.randrange(3), source.random() < 0.5
                with suppress(StoreUnavailable):
                    action()
                cut.countdown = -1
                log.publisher.retry_now()
                if number % check_each == 0:
                    history.see_all(store, memory)
                    check(store.read, history, memory)
                done = cut.before + cut.after
                if done >= wanted:
                    break
            start_again(log)
            log.loop.round()
            history.see_all(store, memory)
            assert store.read.waiting_count() == 0
            assert store.read.published_size() == fsck(log.config, store).entries
            check(store.read, history, memory)
        assert min(cut.before, cut.after) > wanted // 5


def test_a8_a_commit_cut_off_on_postgresql_leads_to_no_wrong_decision(
    tmp_path: Path, postgres_server: Server, new_postgres: Callable[[], str]
) -> None:
    cut_many(tmp_path, postgres_server, new_postgres(), 30, 1)


@pytest.mark.soak
def test_a8_a_thousand_commits_cut_off_on_postgresql_lead_to_no_wrong_decision(
    tmp_path: Path, postgres_server: Server, new_postgres: Callable[[], str]
) -> None:
    cut_many(tmp_path, postgres_server, new_postgres(), 1000, 50)


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A synchronous standby; the setting is made after the copy, so that the standby has none of its own."""
    with folder_of(primary.programs) as standby:
        standby.copy_of(primary, "second")
        standby.start()
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'second'")
        primary.execute("SELECT pg_reload_conf()")
        shown = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        until(lambda: primary.execute(shown) == [("sync",)], "the standby is synchronous")
        yield standby


def submit_until(url: str, history: History, name: str, stop: threading.Event) -> None:
    """A web machine that submits one entry after the other, each until it is acknowledged."""
    with closing(open_store(url)) as store:
        number = 0
        while not stop.is_set():
            entry = b'{"entry":"%s %d"}' % (name.encode(), number)
            with suppress(StoreUnavailable):
                store.write.enqueue([(leaf_hash(entry), entry)], 0)
                history.acknowledge(entry)
                number += 1


def fail_over(
    folder: Path, primary: Server, standby: Server, history: History, source: random.Random
) -> None:
    """Lose the primary at any moment of a round, promote the standby, and go on there."""
    url = f"postgresql+psycopg://postgres@/log?host={primary.folder}&host={standby.folder}"
    url += "&target_session_attrs=read-write"
    stop = threading.Event()
    with local(folder, database=url) as log:
        lease = log.store.lead()
        assert lease is not None
        memory = log.config.keys / MEMORY
        name = primary.folder.name
        writer = threading.Thread(target=submit_until, args=(url, history, name, stop))
        writer.start()
        enough = len(history.acknowledged) + source.randrange(5, 50)
        killer = threading.Thread(
            target=lambda: until(lambda: len(history.acknowledged) >= enough, "entries") and primary.kill()
        )
        killer.start()
        while killer.is_alive():
            log.loop.round()
            log.publisher.retry_now()
        standby.promote()
        before = len(history.acknowledged)
        until(lambda: len(history.acknowledged) > before, "the web machine goes on")
        stop.set()
        writer.join(30)
        lease.close()
        start(log)
        log.loop.round()
        history.see_all(log.store, memory)
        check(log.store.read, history, memory)
        assert fsck(log.config, log.store).published == log.store.read.published_size()


def run_fail_overs(folder: Path, programs: Path, count: int) -> None:
    source, history = random.Random(9), History()
    with folder_of(programs) as first:
        first.create()
        first.start()
        first.execute("CREATE DATABASE log")
        with local(folder, database=first.url("log")) as log:
            log.loop.round()
        with ExitStack() as stack:
            primary = first
            for _ in range(count):
                standby = stack.enter_context(standby_of(primary))
                fail_over(folder, primary, standby, history, source)
                primary = standby


def test_a9_no_acknowledged_entry_is_lost_with_the_primary(tmp_path: Path, postgres_programs: Path) -> None:
    run_fail_overs(tmp_path, postgres_programs, 1)


@pytest.mark.soak
def test_a9_no_acknowledged_entry_is_lost_in_twenty_fail_overs(
    tmp_path: Path, postgres_programs: Path
) -> None:
    run_fail_overs(tmp_path, postgres_programs, 20)
