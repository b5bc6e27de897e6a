"""Backups, restores and recoveries: what comes back is the same log, or nothing comes back."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pysqlite3.dbapi2 as pysqlite3
import pytest

from quotary.errors import (
    CannotTell,
    InvalidSignature,
    Malformed,
    QuotaryError,
    Refused,
    Rejected,
    Usage,
)
from quotary.net.transport import Offline
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.tiles import decode_entry_bundle, encode_entry_bundle
from registry import recover
from registry.backup import make_backup, restore_backup
from registry.config import Config
from registry.errors import RolledBack, WrongSchema
from registry.export import Exporter
from registry.identity import load_log_keys
from registry.memory import create_memory, keep, recall
from registry.public import PublicLog
from registry.recover import Folder, Site, import_log, open_mirror, recover_log
from registry.sequence import only_sequencer
from registry.signer import only_signer
from registry.store import EMPTY_HEAD, create_store, open_store
from registry.store.beside import beside
from registry.store.engine import open_engine
from registry.store.migrate import upgrade
from tests.fakes.authority import ORIGIN, measurement
from tests.fakes.inprocess import Local, local

NOBODY = Offline()


def story(log: Local) -> None:
    """Four rounds: a service, its keys, and two releases."""
    made = log.authority
    log.loop.round()
    for entry in (made.allocation(), made.delegation(), made.release("r1")):
        log.append(entry)


def exported(log: Local, folder: Path) -> Folder:
    Exporter(PublicLog(log.store.read), folder).export_all()
    return Folder(folder)


def memory_of(config: Config) -> Path:
    return config.keys / "signed-head.json"


def lose(config: Config) -> None:
    for path in config.folder.glob("log.db*"):
        path.unlink()


def goes_on(tmp_path: Path, *, size: int) -> None:
    """Open the registry again, and publish one more entry."""
    with local(tmp_path) as log:
        log.publisher.check_witnesses(ORIGIN)
        log.sequencer.check_signer()
        before = log.store.read.published()
        assert before is not None
        assert before.size == size
        made = log.authority
        made.allocation(), made.delegation(), made.release("r1")
        log.append(made.release("r2"))
        assert log.store.read.published_size() == size + 2


def test_a_backup_of_a_running_registry_is_put_back_and_the_log_goes_on(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        assert make_backup(log.config, tmp_path / "backup") == 8
        with pytest.raises(Refused, match="exists"):
            make_backup(log.config, tmp_path / "backup")
    lose(log.config)
    assert restore_backup(log.config, tmp_path / "backup", NOBODY).published == 8
    goes_on(tmp_path, size=8)
    assert {path.name for path in tmp_path.iterdir()} == {"log", "backup"}


def test_a_backup_that_is_older_than_the_signers_memory_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    with local(tmp_path) as log:
        story(log)
        make_backup(log.config, tmp_path / "backup")
        log.append(log.authority.release("r2"))
    before = (log.config.folder / "log.db").read_bytes()
    with pytest.raises(
        RolledBack, match="entries: found 8, wanted at least 10, seen at the signer"
    ) as caught:
        restore_backup(log.config, tmp_path / "backup", NOBODY)
    assert "recover" in str(caught.value.next_command)
    assert (log.config.folder / "log.db").read_bytes() == before
    assert not list(log.config.folder.glob(".log.db*"))


def test_a_backup_made_before_a_signature_takes_it_over(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        log.store.write.enqueue([_entry(log)], 0)
        log.sequencer.integrate()
        make_backup(log.config, tmp_path / "backup")
        log.loop.round()
    restore_backup(log.config, tmp_path / "backup", NOBODY)
    with local(tmp_path) as log:
        signed = log.store.read.signed()
        assert signed is not None
        assert (signed.size, log.store.read.published_size()) == (10, 8)
        log.loop.round()
        assert log.store.read.published_size() == 10


def _entry(log: Local) -> tuple[bytes, bytes]:
    from quotary.tlog.merkle import leaf_hash

    entry = log.authority.release("r2")
    return leaf_hash(entry), entry


def test_a_damaged_or_foreign_backup_is_refused(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        make_backup(log.config, tmp_path / "backup")
    config = log.config
    (tmp_path / "text").write_bytes(b"not a database at all " * 100)
    with pytest.raises(CannotTell):
        restore_backup(config, tmp_path / "text", NOBODY)
    with pytest.raises(CannotTell, match="no file"):
        restore_backup(config, tmp_path / "nothing", NOBODY)
    connection = sqlite3.connect(tmp_path / "backup")
    connection.execute("DROP TRIGGER entry_no_update")
    connection.execute("UPDATE entry SET data = CAST(data || x'20' AS BLOB) WHERE idx = 2")
    connection.commit()
    connection.close()
    with pytest.raises(Rejected, match="leaf hash of entry 2"):
        restore_backup(config, tmp_path / "backup", NOBODY)


def test_a_backup_of_another_schema_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with local(tmp_path / "log") as log:
        story(log)
    before = (log.config.folder / "log.db").read_bytes()
    old = tmp_path / "old"
    upgrade(engine := open_engine(f"sqlite:///{old}"), "0001")
    engine.dispose()
    with pytest.raises(WrongSchema, match=r"schema 0001, this code needs 000") as refused:
        restore_backup(log.config, old, NOBODY)
    assert "the Quotary that made it" in str(refused.value.next_command)
    assert (log.config.folder / "log.db").read_bytes() == before
    for path in log.config.folder.glob("log.db*"):
        path.unlink()
    old.rename(log.config.folder / "log.db")
    with pytest.raises(WrongSchema, match="schema 0001"):
        make_backup(log.config, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_nothing_is_restored_or_recovered_under_a_running_registry(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        make_backup(log.config, tmp_path / "backup")
        mirror = exported(log, tmp_path / "mirror")
        for lock in (only_sequencer(log.config), only_signer(log.config.keys)):
            with lock:
                with pytest.raises(Usage, match="already runs"):
                    restore_backup(log.config, tmp_path / "backup", NOBODY)
                with pytest.raises(Usage, match="already runs"):
                    recover_log(log.config, mirror, NOBODY, False)


def test_a_lost_database_is_rebuilt_from_a_mirror_byte_for_byte(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        mirror = exported(log, tmp_path / "mirror")
        before = log.store.read.head(), log.store.read.signed(), log.store.read.published()
        rows = log.store.read.outcomes(0, 8), log.store.read.records(8)
    lose(log.config)
    checked = recover_log(log.config, mirror, NOBODY, False)
    assert (checked.entries, checked.published) == (8, 8)
    with local(tmp_path) as log:
        read = log.store.read
        head, signed, published = read.head(), read.signed(), read.published()
        assert head is not None
        assert published is not None
        assert (head.size, head.root, head.trie_root, head.frontier) == (
            (before[0].size, before[0].root, before[0].trie_root, before[0].frontier) if before[0] else None
        )
        assert signed == before[1]
        assert published.note == (before[2].note if before[2] else None)
        assert (read.outcomes(0, 8), read.records(8)) == rows
    goes_on(tmp_path, size=8)


def test_a_registry_that_lost_its_memory_too_needs_a_witness(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        mirror = exported(log, tmp_path / "mirror")
    lose(log.config)
    memory_of(log.config).unlink()
    with pytest.raises(CannotTell, match="nobody can say"):
        recover_log(log.config, mirror, NOBODY, False)
    create_memory(memory_of(log.config))
    with pytest.raises(CannotTell, match="nobody can say"):
        recover_log(log.config, mirror, NOBODY, False)


def test_a_mirror_behind_the_signer_is_refused_and_without_witnesses_nothing_may_be_forgotten(
    tmp_path: Path,
) -> None:
    with local(tmp_path) as log:
        story(log)
        mirror = exported(log, tmp_path / "mirror")
        log.append(log.authority.release("r2"))
    memory = memory_of(log.config).read_bytes()
    for forget in (False, True):
        with pytest.raises(RolledBack, match="size at the signer: found 10, wanted at most the mirror's 8"):
            recover_log(log.config, mirror, NOBODY, forget)
    assert memory_of(log.config).read_bytes() == memory
    assert (log.config.folder / "log.db").exists()


def test_a_mirror_of_another_history_is_refused(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        mirror = exported(log, tmp_path / "mirror")
    memory = recall(memory_of(log.config))
    keep(memory_of(log.config), type(memory)(4, bytes(32), memory.note))
    with pytest.raises(RolledBack, match="root of size 4 at the signer"):
        recover_log(log.config, mirror, NOBODY, False)


def test_every_byte_of_a_mirror_is_checked(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        exported(log, tmp_path / "mirror")
    bundle, note = (tmp_path / "mirror" / name for name in ("tile/entries/000.p/8", "checkpoint"))
    entries = list(decode_entry_bundle(bundle.read_bytes()))
    keys = load_log_keys(log.config.keys, ORIGIN).signing
    state = entries[-1]
    later = state.replace(b'"ts":1', b'"ts":2')
    assert later != state
    broken = [
        (note, note.read_bytes().replace(b"\n8\n", b"\n7\n"), InvalidSignature),
        (note, b"", Malformed),
        (note, sign_checkpoint(Checkpoint(ORIGIN, 8, bytes(32)), keys, 1), Rejected),
        (note, sign_checkpoint(Checkpoint(ORIGIN, 8, bytes(32)), keys[:1], 1), Refused),
        (bundle, encode_entry_bundle(entries[:7]), Malformed),
        (bundle, encode_entry_bundle([*entries[:3], entries[3][:-1], *entries[4:]]), QuotaryError),
        (bundle, encode_entry_bundle([*entries[:-1], later]), Rejected),
        (bundle, encode_entry_bundle([entries[1], entries[0], *entries[2:]]), Rejected),
        (bundle, bundle.read_bytes()[:-1], Malformed),
    ]
    for path, data, error in broken:
        whole = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(error):
            recover_log(log.config, Folder(tmp_path / "mirror"), NOBODY, False)
        path.write_bytes(whole)
    bundle.unlink()
    with pytest.raises(CannotTell, match="mirror has no"):
        recover_log(log.config, Folder(tmp_path / "mirror"), NOBODY, False)
    goes_on(tmp_path, size=8)


def test_a_mirror_of_another_log_is_refused(tmp_path: Path) -> None:
    with local(tmp_path / "one") as one, local(tmp_path / "two") as two:
        story(one)
        story(two)
        mirror = exported(two, tmp_path / "mirror")
    with pytest.raises(InvalidSignature, match="no known key"):
        recover_log(one.config, mirror, NOBODY, False)


def test_a_mirror_is_a_folder_or_an_address(tmp_path: Path) -> None:
    assert isinstance(open_mirror(str(tmp_path), NOBODY), Folder)
    assert isinstance(open_mirror("https://mirror.example.org", NOBODY), Site)
    with pytest.raises(CannotTell, match="offline"):
        open_mirror("https://mirror.example.org/", NOBODY).get("checkpoint")


def new(log: Local) -> None:
    """Put a registry of the same keys in the place of a log's, as it was before the first entry."""
    lose(log.config)
    with closing(create_store(log.config.database_url)) as store:
        store.write.create(EMPTY_HEAD)
        store.write.enqueue([(leaf_hash(b"waits"), b"waits")], 1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_imported_log_serves_the_bytes_of_the_log_that_was_exported(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        log.append(*(log.authority.release(f"x{number}") for number in range(300)))
        dump = exported(log, tmp_path / "dump")
    new(log)
    checked = import_log(log.config, dump, NOBODY)
    assert (checked.entries, checked.published) == (309, 309)
    with closing(open_store(log.config.database_url)) as store:
        Exporter(PublicLog(store.read), tmp_path / "again").export_all()
        assert store.read.waiting_count() == 0
    assert files_of(tmp_path / "again") == files_of(tmp_path / "dump")
    assert {"checkpoint", "tile/0/000", "tile/entries/001.p/53"} < files_of(tmp_path / "again").keys()


def test_a_registry_that_holds_a_log_imports_none(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        dump = exported(log, tmp_path / "dump")
    before = files_of(log.config.folder)
    with pytest.raises(Refused, match="a log of 8 entries"):
        import_log(log.config, dump, NOBODY)
    assert files_of(log.config.folder) == before


def test_an_import_that_is_killed_leaves_the_registry_new_and_can_be_made_again(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        dump = exported(log, tmp_path / "dump")
    new(log)
    child = os.fork()
    if child == 0:
        # After all entries are durable, before the map function has seen one.
        recover.derive = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        import_log(log.config, dump, NOBODY)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with closing(open_store(log.config.database_url)) as store:
        assert store.read.head() == EMPTY_HEAD
        assert store.read.entries(0, 9) == []
    assert import_log(log.config, dump, NOBODY).entries == 8
    goes_on(tmp_path, size=8)


def test_an_export_holds_every_file_of_the_published_size_and_mends_what_was_changed(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        exported(log, tmp_path / "out")
        whole = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
        names = {str(path.relative_to(tmp_path / "out")) for path in whole}
        bundle = f"api/v1/bundles/chat/{measurement('r1').hex()}"
        assert names == {"checkpoint", "tile/0/000.p/8", "tile/entries/000.p/8", bundle}
        for path in whole:
            path.write_bytes(b"changed")
        exported(log, tmp_path / "out")
        assert {path: path.read_bytes() for path in whole} == whole
        assert PublicLog(log.store.read).snapshot().note == whole[tmp_path / "out" / "checkpoint"]


def test_a_new_database_whose_log_did_not_reach_its_file_takes_nobodys_place(tmp_path: Path) -> None:
    """Whoever else has it open keeps SQLite from moving the log, as a failing disk does: no error says so."""
    refused = pytest.raises(CannotTell, match="was not written whole")
    with refused, beside(f"sqlite:///{tmp_path}/log.db") as new, new.create() as store:
        database = store.engine.url.database
        assert database is not None
        other = pysqlite3.connect(database)
        assert other.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    other.close()
