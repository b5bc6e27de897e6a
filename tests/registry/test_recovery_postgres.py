"""Backups, restores and recoveries of a log in PostgreSQL: the same commands, checks and bytes as on SQLite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import inspect, make_url

from quotary.errors import CannotTell, Rejected, Usage
from registry.backup import make_backup, restore_backup
from registry.errors import RolledBack
from registry.recover import recover_log
from registry.store import Store, open_store
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Local, config_of, local
from tests.fakes.postgres import Server
from tests.registry.test_determinism import rows_of
from tests.registry.test_recovery import NOBODY, exported, memory_of, story


@pytest.fixture
def url(postgres_server: Server, new_postgres: Callable[[], str]) -> str:
    """A database whose owner is nobody special."""
    made = make_url(new_postgres())
    owner = f"{made.database}_owner"
    postgres_server.execute(f"CREATE ROLE {owner} LOGIN")
    postgres_server.execute(f"ALTER DATABASE {made.database} OWNER TO {owner}")
    postgres_server.execute(f"GRANT pg_read_all_stats TO {owner}")
    return postgres_server.url(str(made.database), owner)


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def schemas(url: str) -> list[str]:
    with opened(url) as store:
        names = inspect(store.engine).get_schema_names()
    return [name for name in names if name.startswith("public")]


def goes_on(tmp_path: Path, url: str, *, size: int) -> None:
    with local(tmp_path, database=url) as log:
        log.publisher.check_witnesses(ORIGIN)
        log.sequencer.check_signer()
        assert log.store.read.published_size() == size
        made = log.authority
        made.allocation(), made.delegation(), made.release("r1")
        log.append(made.release("r2"))
        assert log.store.read.published_size() == size + 2


def told(tmp_path: Path, url: str) -> tuple[Local, dict[str, object]]:
    with local(tmp_path, database=url) as log:
        story(log)
        log.store.write.enqueue([(b"l" * 32, b"waits"), (b"k" * 32, b"waits too")], 7)
        return log, rows_of(log.store)


def test_a_backup_made_while_the_log_runs_is_put_back_and_the_log_goes_on(tmp_path: Path, url: str) -> None:
    with local(tmp_path, database=url) as log:
        story(log)
        lease = log.store.lead()
        assert lease is not None
        assert make_backup(log.config, tmp_path / "backup") == 8
        with pytest.raises(Usage, match="leads this database"):
            restore_backup(log.config, tmp_path / "backup", NOBODY)
        lease.close()
    assert {path.name for path in tmp_path.iterdir()} == {"log", "backup"}
    assert restore_backup(log.config, tmp_path / "backup", NOBODY).published == 8
    before, now = sorted(schemas(url), key=len, reverse=True)
    assert (now, before[:14]) == ("public", "public_before_")
    goes_on(tmp_path, url, size=8)


@pytest.mark.parametrize("first", ["sqlite", "postgresql"])
def test_a_log_moves_between_the_two_databases_by_a_backup(tmp_path: Path, url: str, first: str) -> None:
    places = ["sqlite:///log.db", url] if first == "sqlite" else [url, "sqlite:///log.db"]
    log, before = told(tmp_path, places[0])
    make_backup(log.config, tmp_path / "backup")
    config = config_of(log.config.folder, places[1])
    checked = restore_backup(config, tmp_path / "backup", NOBODY)
    assert (checked.entries, checked.published) == (8, 8)
    with opened(config.database_url) as store:
        assert [row.data for row in store.read.waiting(9)] == [b"waits", b"waits too"]
        store.write.forget([row.id for row in store.read.waiting(9)])
    with local(tmp_path, database=places[1]) as moved:
        assert rows_of(moved.store) == before
    goes_on(tmp_path, places[1], size=8)


def test_a_lost_database_is_rebuilt_from_a_mirror_byte_for_byte(
    tmp_path: Path, postgres_server: Server, url: str
) -> None:
    with local(tmp_path, database=url) as log:
        story(log)
        mirror = exported(log, tmp_path / "mirror")
        before = rows_of(log.store)
    place = make_url(url)
    postgres_server.execute(f"DROP DATABASE {place.database}")
    postgres_server.execute(f"CREATE DATABASE {place.database} OWNER {place.username}")
    checked = recover_log(log.config, mirror, NOBODY, False)
    assert (checked.entries, checked.published) == (8, 8)
    with local(tmp_path, database=url) as log:
        after = rows_of(log.store)
    # A mirror tells of the newest checkpoint only.
    assert after.pop("checkpoints") == before.pop("checkpoints")[-1:]  # type: ignore[index]
    assert after == before
    goes_on(tmp_path, url, size=8)


def test_a_refused_restore_or_recovery_leaves_everything_as_it_is(tmp_path: Path, url: str) -> None:
    with local(tmp_path, database=url) as log:
        story(log)
        make_backup(log.config, tmp_path / "backup")
        mirror = exported(log, tmp_path / "mirror")
        log.append(log.authority.release("r2"))
        before = rows_of(log.store)
    memory = memory_of(log.config).read_bytes()
    with pytest.raises(RolledBack, match="found 8, wanted at least 10"):
        restore_backup(log.config, tmp_path / "backup", NOBODY)
    with pytest.raises(RolledBack, match="found 10, wanted at most the mirror's 8"):
        recover_log(log.config, mirror, NOBODY, False)
    (tmp_path / "text").write_bytes(b"not a database at all " * 100)
    with pytest.raises(CannotTell, match="not a backup"):
        restore_backup(log.config, tmp_path / "text", NOBODY)
    (tmp_path / "mirror/tile/entries/000.p/8").unlink()
    with pytest.raises(CannotTell, match="mirror has no"):
        recover_log(log.config, mirror, NOBODY, False)
    assert schemas(url) == ["public"]
    assert memory_of(log.config).read_bytes() == memory
    with local(tmp_path, database=url) as log:
        assert rows_of(log.store) == before


def test_fsck_finds_a_row_that_the_database_let_through(
    tmp_path: Path, postgres_server: Server, url: str
) -> None:
    from quotary.tlog.policy import TlogPolicy
    from registry.fsck import check_store

    log, _ = told(tmp_path, url)
    policy = TlogPolicy.parse(log.config.policy.read_text("utf-8"))
    with opened(url) as store:
        assert check_store(store.read, ORIGIN, policy).entries == 8
        # The owner can switch them off: triggers and roles end there, and the hashes begin.
        name = str(make_url(url).database)
        postgres_server.execute("ALTER TABLE entry DISABLE TRIGGER ALL", name)
        postgres_server.execute("UPDATE entry SET data = data || 'x' WHERE idx = 2", name)
        with pytest.raises(Rejected, match="leaf hash of entry 2"):
            check_store(store.read, ORIGIN, policy)
