"""Back up a running SQLite registry, and put a backup back without forking the log.

A backup is the database alone. The keys, the policy and ``registry.toml`` change rarely and are small:
they are copied once, by other means. The signer's memory must never go back, so it is not in a backup either.
"""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as pysqlite3

from quotary.errors import CannotTell, Refused, Unsupported
from quotary.net.transport import Transport
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import root_at
from registry.config import Config
from registry.errors import RolledBack
from registry.fsck import Checked, check_store
from registry.memory import SignedHead, recall
from registry.sequence import only_sequencer
from registry.signer import only_signer
from registry.store import Signed, Store, open_store
from registry.tree import StoredTiles
from registry.witnesses import NEXT, Rounds

PREFIX = "sqlite:///"
PAGES_A_STEP = 1024


def make_backup(config: Config, out: Path) -> int:
    """Copy the database page by page while it is in use, check the copy, and give its number of entries."""
    source = database_file(config)
    if out.exists():
        raise Refused("file", f"{out} exists", "a new file")
    beside = out.with_name(f".{out.name}.new")
    beside.unlink(missing_ok=True)
    try:
        with closing(_connect(source)) as live, closing(_connect(beside)) as copy:
            live.backup(copy, pages=PAGES_A_STEP)
            _check_pages(copy, beside)
            # A single file is easier to carry than one with a write-ahead log beside it.
            copy.execute("PRAGMA journal_mode=DELETE")
        with closing(open_store(PREFIX + str(beside))) as store:
            size = _size(store)
        settle(beside, out)
    except (pysqlite3.Error, OSError) as error:
        raise CannotTell(f"no backup was made: {error}") from error
    finally:
        remove(beside)
    return size


def restore_backup(config: Config, file: Path, transport: Transport) -> Checked:
    """Put a backup in the place of the database.

    1. Nothing runs over the registry. 2. The backup is whole, and agrees with its own entries, the log's keys
    and the quorum. 3. It is no smaller than what the signer signed and what a witness has seen, and continues
    both. Raises ``RolledBack`` otherwise, and leaves everything as it is.
    """
    target = database_file(config)
    if not file.is_file():
        raise CannotTell(f"{file} is no file")
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    beside = target.with_name(f".{target.name}.new")
    with only_sequencer(config), only_signer(config.keys):
        remove(beside)
        try:
            with closing(_connect(file)) as copy, closing(_connect(beside)) as mine:
                copy.backup(mine)
                _check_pages(mine, file)
            with closing(open_store(PREFIX + str(beside))) as store:
                checked = check_store(store.read, config.origin, policy)
                memory = recall(config.keys / "signed-head.json")
                check_memory(store, memory)
                check_witnesses(config, policy, transport, store, memory)
                _add_signature(store, memory)
            config.snapshot.unlink(missing_ok=True)
            put_in_place(beside, target)
        except pysqlite3.Error as error:
            raise CannotTell(f"{file} is not a backup: {error}") from error
        finally:
            remove(beside)
    return checked


def database_file(config: Config) -> Path:
    """Give the path of the SQLite database; PostgreSQL has tools of its own."""
    if not config.database_url.startswith(PREFIX):
        raise Unsupported(
            "this database is not SQLite",
            next_command="pg_dump --format=custom, and pg_restore into a new one",
        )
    return Path(config.database_url.removeprefix(PREFIX))


def check_memory(store: Store, memory: SignedHead) -> None:
    """Refuse a tree that does not hold everything that the signer signed."""
    _check_continues(store, "the signer", memory.size, memory.root)


def check_witnesses(
    config: Config, policy: TlogPolicy, transport: Transport, store: Store, memory: SignedHead
) -> None:
    """Refuse a tree smaller than, or another one than, what a witness has seen under this log's keys.

    Raises ``CannotTell`` where there are witnesses and none answers.
    """
    urls = [witness.url for witness in policy.witnesses.values() if witness.url]
    found = Rounds(transport, urls, policy.logs).newest(config.origin)
    if urls and not found:
        raise CannotTell(f"none of {len(urls)} witnesses answers, so nobody can say whether this goes back")
    for url, seen in found.items():
        if seen is not None:
            _check_continues(store, f"witness {url}", seen.size, seen.root)
            if seen.size > memory.size:
                raise RolledBack(
                    "the signer's memory",
                    f"size {memory.size}",
                    f"at least {seen.size}, seen at {url}",
                    next_command=NEXT,
                )


def settle(beside: Path, target: Path) -> None:
    """Make a new file durable and give it its name."""
    for path in (beside, beside.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == beside:
            beside.replace(target)


def put_in_place(beside: Path, target: Path) -> None:
    """Replace a database; the old one is kept under a name with the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("-wal", "-shm", ""):
        old = target.with_name(target.name + suffix)
        if old.exists():
            old.rename(target.with_name(f"{target.name}.before-{stamp}{suffix}"))
    settle(beside, target)


def remove(beside: Path) -> None:
    """Remove a database that nobody needs."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        beside.with_name(beside.name + suffix).unlink(missing_ok=True)


def _check_continues(store: Store, who: str, size: int, root: bytes) -> None:
    found = _size(store)
    if found < size:
        raise RolledBack("entries", str(found), f"at least {size}, seen at {who}", next_command=NEXT)
    if size and root_at(size, StoredTiles(store.read)) != root:
        raise RolledBack(f"root of size {size} at {who}", root.hex(), "ours", next_command=NEXT)


def _add_signature(store: Store, memory: SignedHead) -> None:
    """Take over a signature that was made after the backup was."""
    signed = store.read.signed()
    previous = signed.size if signed else 0
    if memory.size > previous:
        store.write.add_signed(Signed(memory.size, memory.root, memory.note), previous)


def _size(store: Store) -> int:
    head = store.read.head()
    if head is None:
        raise CannotTell("the database holds no log")
    return head.size


def _connect(path: Path) -> Any:
    return pysqlite3.connect(str(path), timeout=10.0)


def _check_pages(connection: Any, path: Path) -> None:
    found = connection.execute("PRAGMA integrity_check").fetchone()
    if found != ("ok",):
        raise CannotTell(f"{path} is damaged: {str(found)[:200]}")
