"""PostgreSQL: which servers are refused, what each role may do, and who leads."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from quotary.errors import Usage
from quotary.net.transport import Offline
from quotary.tlog.merkle import leaf_hash
from registry.cli import registry
from registry.config import Config
from registry.doctor import Finding, examine
from registry.errors import HeadMoved, LeadershipLost, StoreUnavailable, UnsafeDatabase, WrongSchema
from registry.looks import Surroundings
from registry.store import EMPTY_HEAD, Lease, Published, Signed, Store, create_store, open_store
from registry.store.engine import open_engine
from registry.store.migrate import upgrade
from registry.store.postgres import check_address
from registry.store.roles import NAMES, script
from registry.store.schema import APPEND_ONLY, metadata
from tests.fakes.authority import NOW
from tests.fakes.inprocess import config_of, local
from tests.fakes.postgres import Server, folder_of
from tests.fakes.processes import until


def doctor_on_the_database(config: Config) -> Finding:
    """What the doctor says of the database."""
    around = Surroundings(Offline(), lambda: NOW)
    (said,) = [said for said in examine(config, around) if said.name.startswith("database")]
    return said


TABLES = sorted((*metadata.tables, "alembic_version"))


@pytest.fixture
def url(new_postgres: Callable[[], str]) -> str:
    return new_postgres()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = create_store(url)
    made.write.create(EMPTY_HEAD)
    yield made
    made.close()


@pytest.mark.parametrize(
    "query",
    [
        "host=/run/postgresql",
        "host=127.0.0.1:5433",
        "host=localhost",
        "host=/run/a&host=/run/b",
        "host=a.example.org:5432&host=b.example.org&sslmode=verify-full",
    ],
)
def test_a_socket_loopback_and_a_verified_connection_are_addresses(query: str) -> None:
    check_address(make_url(f"postgresql+psycopg://quotary@/log?{query}"))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql+psycopg://quotary:secret@/log?host=/run/postgresql", "carries a password"),
        ("postgresql+psycopg://quotary@/log", "names no host"),
        ("postgresql+psycopg://quotary@db.example.org/log", "would not be verified"),
        ("postgresql+psycopg://quotary@db.example.org/log?sslmode=require", "would not be verified"),
        ("postgresql+psycopg://quotary@/log?host=/run/a&host=10.0.0.1", "would not be verified"),
        ("postgresql+psycopg://quotary@/log?host=/run/a,db.example.org:5432", "would not be verified"),
    ],
)
def test_a_password_an_unnamed_host_and_an_unverified_network_are_refused(url: str, why: str) -> None:
    with pytest.raises(Usage, match=why) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "..." in str(caught.value.next_command)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_acknowledged_is_refused(
    postgres_server: Server, store: Store, url: str, setting: str
) -> None:
    shown = f"SELECT setting FROM pg_settings WHERE name = '{setting}'"

    def change(value: str) -> None:
        postgres_server.execute(f"ALTER SYSTEM SET {setting} = {value}")
        postgres_server.execute("SELECT pg_reload_conf()")
        until(lambda: postgres_server.execute(shown) == [(value,)], f"{setting} is {value}")

    change("off")
    try:
        with pytest.raises(UnsafeDatabase, match=f"{setting} off, wanted on"):
            open_store(url)
    finally:
        change("on")
    open_store(url).close()


def test_t22_a_server_that_tries_a_failed_flush_again_is_refused(postgres_programs: Path) -> None:
    with folder_of(postgres_programs) as server:
        server.create()
        server.start("data_sync_retry=on")
        server.execute("CREATE DATABASE log")
        with pytest.raises(UnsafeDatabase, match="data_sync_retry on, wanted off"):
            create_store(server.url("log"))


@pytest.mark.parametrize("value", ["off", "local", "remote_write"])
def test_a_database_whose_commits_do_not_wait_for_the_disk_is_refused(
    postgres_server: Server, store: Store, url: str, value: str
) -> None:
    name = make_url(url).database
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = {value}")
    with pytest.raises(UnsafeDatabase, match=f"synchronous_commit {value}, wanted on or remote_apply"):
        open_store(url)
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    open_store(url).close()


def test_waiting_is_bounded_and_a_full_pool_is_an_outage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.engine.connect() as connection:
        names = "'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'"
        found = connection.execute(text(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})"))
        assert {name: int(value) for name, value in found} == {
            "statement_timeout": 30_000,
            "lock_timeout": 10_000,
            "idle_in_transaction_session_timeout": 8_000,
        }
    monkeypatch.setattr(store.engine.pool, "_timeout", 0.05)
    taken = [store.engine.connect() for _ in range(8)]
    try:
        with pytest.raises(StoreUnavailable, match="in use"):
            store.read.head()
    finally:
        for connection in taken:
            connection.close()


def test_of_two_that_store_a_signature_at_once_the_second_learns_that_it_was_overtaken(store: Store) -> None:
    row = "INSERT INTO checkpoint (size, prev_size, root, note) VALUES (3, 0, 'r', 'n')"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    def is_waiting() -> bool:
        with store.engine.connect() as connection:
            return connection.scalar(text(waits)) == 1

    with ThreadPoolExecutor(1) as pool:
        with store.engine.execution_options(writes=True).begin() as first:
            first.execute(text("SELECT id FROM head FOR UPDATE"))
            first.execute(text(row))
            second = pool.submit(store.write.add_signed, Signed(5, b"r" * 32, b"b"), 0)
            until(is_waiting, "the second waits")
        with pytest.raises(HeadMoved, match="newest signed size is 3"):
            second.result()


def test_the_database_itself_refuses_a_second_chain_of_checkpoints(store: Store) -> None:
    store.write.add_signed(Signed(3, b"r" * 32, b"a"), 0)
    for size, previous in ((5, 0), (5, 2), (3, 3)):
        with (
            pytest.raises(HeadMoved, match="newest signed size is 3")
            if previous != 3
            else pytest.raises(DBAPIError)
        ):
            store.write.add_signed(Signed(size, b"r" * 32, b"b"), previous)
        row = f"INSERT INTO checkpoint VALUES ({size}, {previous}, 'r', 'n')"
        with pytest.raises(DBAPIError), store.engine.begin() as connection:
            connection.execute(text(row))


@pytest.fixture
def roles(postgres_server: Server, store: Store, url: str) -> dict[str, str]:
    """A user in each of the three roles, and the URL that it connects with; the log has one entry."""
    database = make_url(url).database
    assert database is not None
    store.write.enqueue([(leaf_hash(b"a"), b"a")], 1)
    store.write.add_signed(Signed(3, b"r" * 32, b"a"), 0)
    store.write.publish(Published(3, b"a", 1))
    with store.engine.begin() as connection:
        for row in ("node VALUES ('h', 'd')", "tile VALUES (0, 0, 'd')", "record VALUES ('k', 0, 'd')"):
            connection.execute(text(f"INSERT INTO {row}"))
    printed = CliRunner().invoke(registry, ["roles", "--prefix", database]).stdout
    assert printed == script(database)
    urls = {}
    for name in NAMES:
        # Twice: after an upgrade the same text runs again.
        with psycopg.connect(f"host={postgres_server.folder} user=postgres dbname={database}") as connection:
            connection.execute(printed)  # type: ignore[call-overload]  # psycopg wants a literal
        user = f"{database}_{name}_1"
        postgres_server.execute(f"CREATE ROLE {user} LOGIN IN ROLE {database}_{name}")
        urls[name] = postgres_server.url(database, user)
    return urls


def allowed(url: str, statement: str) -> bool:
    """Try a statement in a transaction that is rolled back; say whether the role may."""
    place = make_url(url)
    with psycopg.connect(
        f"host={place.query['host']} user={place.username} dbname={place.database}"
    ) as tried:
        try:
            tried.execute(statement)  # type: ignore[call-overload]  # psycopg wants a literal
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            tried.rollback()
    return True


MAY = {
    "web": {("INSERT", "pending")},
    "sequencer": {
        *(("INSERT", table) for table in APPEND_ONLY),
        ("INSERT", "published"),
        ("UPDATE", "published"),
        ("UPDATE", "head"),
        ("DELETE", "pending"),
    },
    "reader": set(),
}


@pytest.mark.parametrize("role", NAMES)
def test_no_role_changes_deletes_or_truncates_what_was_appended(
    roles: dict[str, str], store: Store, role: str
) -> None:
    with store.engine.connect() as connection:
        granted = connection.execute(
            text(
                "SELECT privilege_type, table_name FROM information_schema.table_privileges "
                "WHERE grantee = :role AND privilege_type <> 'SELECT'"
            ),
            {"role": f"{make_url(roles[role]).database}_{role}"},
        )
        wide = {(verb, table) for verb, table in granted}
    assert wide == MAY[role] - {("INSERT", "pending")}
    for table in TABLES:
        assert allowed(roles[role], f"SELECT * FROM {table}")
        column = (
            next(iter(metadata.tables[table].columns)).name if table in metadata.tables else "version_num"
        )
        tried = {
            "UPDATE": f"UPDATE {table} SET {column} = {column}",
            "DELETE": f"DELETE FROM {table}",
            "TRUNCATE": f"TRUNCATE {table}",
        }
        for verb, statement in tried.items():
            if (verb, table) not in MAY[role]:
                assert not allowed(roles[role], statement), (role, statement)


@pytest.mark.parametrize("role", NAMES)
def test_no_role_makes_tables_or_switches_triggers_off(roles: dict[str, str], role: str) -> None:
    for statement in (
        "CREATE TABLE entry2 (a int)",
        # A temporary table would be found before the real one by the triggers.
        "CREATE TEMPORARY TABLE entry (idx int)",
        "SET session_replication_role = replica",
        "ALTER TABLE entry DISABLE TRIGGER ALL",
        "DROP TRIGGER entry_gap ON entry",
    ):
        assert not allowed(roles[role], statement), statement


def test_web_adds_what_waits_and_neither_chooses_its_place_nor_removes_it(roles: dict[str, str]) -> None:
    web = open_store(roles["web"])
    web.write.enqueue([(leaf_hash(b"a"), b"a"), (leaf_hash(b"b"), b"b")], 2)
    assert [row.data for row in web.read.waiting(9)] == [b"a", b"b"]
    assert not allowed(roles["web"], "INSERT INTO pending VALUES (0, 'l', 'd', 1)")
    head = web.read.head()
    assert head is not None
    with pytest.raises(StoreUnavailable, match="permission denied") as caught:
        web.write.take_over(head)
    assert "registry roles" in str(caught.value.next_command)
    web.close()


@pytest.mark.parametrize("prefix", ["", "1a", "Log", "a;b", "a b", "a" * 50])
def test_a_prefix_that_sql_would_read_differently_is_refused(prefix: str) -> None:
    with pytest.raises(Usage, match="prefix"):
        script(prefix)


def test_a_whole_registry_works_under_the_roles_alone(
    tmp_path: Path, postgres_server: Server, new_postgres: Callable[[], str]
) -> None:
    url = new_postgres()
    database = str(make_url(url).database)
    with local(tmp_path, database=url):
        pass
    with psycopg.connect(f"host={postgres_server.folder} user=postgres dbname={database}") as connection:
        connection.execute(script(database))  # type: ignore[call-overload]  # psycopg wants a literal
    for name in NAMES:
        postgres_server.execute(f"CREATE ROLE {database}_{name}_1 LOGIN IN ROLE {database}_{name}")
    roles = {name: postgres_server.url(database, f"{database}_{name}_1") for name in NAMES}
    with local(tmp_path, database=url, store=open_store(roles["sequencer"])) as log:
        web = open_store(roles["web"])
        log.loop.round()
        for entry in (log.authority.allocation(), log.authority.delegation(), log.authority.release("r1")):
            web.write.enqueue([(leaf_hash(entry), entry)], 1)
            log.loop.round()
        assert web.read.published_size() == 8
        web.close()
        reader = config_of(tmp_path / "log", roles["reader"])
        assert doctor_on_the_database(reader).state == "fine"


def test_of_two_stores_one_leads_until_it_lets_go(store: Store, url: str) -> None:
    other = open_store(url)
    lease = store.lead()
    assert lease is not None
    assert other.lead() is None
    lease.check()
    lease.close()
    taken = other.lead()
    assert taken is not None
    taken.close()
    other.close()


def test_who_loses_the_session_leads_no_more_and_another_one_may(
    postgres_server: Server, store: Store, url: str
) -> None:
    lease = store.lead()
    assert lease is not None
    ended = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = "
    ended += f"(SELECT oid FROM pg_database WHERE datname = '{make_url(url).database}')"
    assert postgres_server.execute(ended) == [(True,)]

    def lost() -> bool:
        try:
            lease.check()
        except LeadershipLost:
            return True
        return False

    until(lost, "the leader notices that its session is gone")
    other = store.lead()
    assert other is not None
    other.check()
    with pytest.raises(LeadershipLost, match="is over"):
        lease.check()
    other.close()
    lease.close()


def test_a9_a_server_with_an_asynchronous_standby_is_refused_and_with_a_synchronous_one_is_not(
    tmp_path: Path, postgres_programs: Path
) -> None:
    """A9, the half that every run can afford."""
    with folder_of(postgres_programs) as primary, folder_of(postgres_programs) as standby:
        primary.create()
        primary.start()
        primary.execute("CREATE DATABASE log")
        with local(tmp_path, database=primary.url("log")) as log:
            standby.copy_of(primary, "second")
            standby.start()
            shown = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
            until(lambda: primary.execute(shown) == [("async",)], "the standby streams")
            with pytest.raises(UnsafeDatabase, match="standby second is asynchronous") as caught:
                log.store.lead()
            assert "synchronous_standby_names" in str(caught.value.next_command)
            assert "asynchronous" in doctor_on_the_database(log.config).problem
            primary.execute("CREATE ROLE nobody LOGIN IN ROLE pg_read_all_data")
            blind = open_store(primary.url("log", "nobody"))
            with pytest.raises(UnsafeDatabase, match="may not see"):
                blind.lead()
            blind.close()
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'second'")
            primary.execute("SELECT pg_reload_conf()")
            until(lambda: primary.execute(shown) == [("sync",)], "the standby is synchronous")
            lease = log.store.lead()
            assert lease is not None
            lease.check()
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            primary.execute("SELECT pg_reload_conf()")
            refused = until(lambda: refusal(lease), "whoever leads stops")
            assert "standby second is asynchronous" in str(refused)
            lease.close()


def refusal(lease: Lease) -> UnsafeDatabase | None:
    try:
        lease.check()
    except UnsafeDatabase as error:
        return error
    return None


def test_the_script_names_every_table_of_the_schema() -> None:
    text_of = script("quotary")
    for table in TABLES:
        assert re.search(rf"\b{table}\b", text_of), table


def test_an_upgrade_that_finds_a_table_locked_gives_up_soon_and_changes_nothing(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE alembic_version IN SHARE MODE"))
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            create_store(url)
        assert time.monotonic() - started < 9
    with pytest.raises(WrongSchema, match="0001"):
        open_store(url)
    engine.dispose()
    create_store(url).close()


def test_a_commit_waits_for_the_standby_and_is_acknowledged_when_it_is_back(
    tmp_path: Path, postgres_programs: Path
) -> None:
    with folder_of(postgres_programs) as primary, folder_of(postgres_programs) as standby:
        primary.create()
        primary.start()
        primary.execute("CREATE DATABASE log")
        with closing(create_store(primary.url("log"))) as store:
            standby.copy_of(primary, "second")
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'second'")
            primary.execute("SELECT pg_reload_conf()")
            acknowledged = threading.Event()

            def enqueue() -> None:
                store.write.enqueue([(leaf_hash(b"a"), b"a")], 1)
                acknowledged.set()

            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            until(lambda: primary.execute("SHOW synchronous_standby_names") == [("second",)], "it is set")
            threading.Thread(target=enqueue, daemon=True).start()
            until(lambda: primary.execute(waiting) == [(1,)], "the commit waits")
            assert not acknowledged.is_set()
            standby.start()
            until(acknowledged.is_set, "it is acknowledged")
