"""Back up a running registry, and put a backup back without forking the log.

A backup is the database alone. The keys, the policy and ``registry.toml`` change rarely and are small:
they are copied once, by other means. The signer's memory must never go back, so it is not in a backup either.
"""

from contextlib import ExitStack, closing
from pathlib import Path

from quotary.errors import CannotTell, Refused
from quotary.net.transport import Transport
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import root_at
from registry.config import Config
from registry.errors import RolledBack
from registry.fsck import Checked, check_store
from registry.memory import NAME, SignedHead, recall
from registry.sequence import only_sequencer
from registry.signer import only_signer
from registry.store import Signed, Store, open_store
from registry.store.beside import PREFIX, beside, remove_file, settle_file
from registry.store.copies import fill, save, saved
from registry.tree import StoredTiles
from registry.witnesses import NEXT, Rounds


def make_backup(config: Config, out: Path) -> int:
    """Copy the database to a SQLite file while it is in use, check it, and give its number of entries."""
    if out.exists():
        raise Refused("file", f"{out} exists", "a new file")
    new = out.with_name(f".{out.name}.new")
    remove_file(new)
    try:
        with closing(open_store(config.database_url)) as store:
            save(store, new)
        with closing(open_store(PREFIX + str(new))) as store:
            size = _size(store)
        settle_file(new, out)
    except OSError as error:
        raise CannotTell(f"no backup was made: {error}") from error
    finally:
        remove_file(new)
    return size


def restore_backup(config: Config, file: Path, transport: Transport) -> Checked:
    """Put a backup in the place of the database, whichever kind of database either is.

    1. Nothing runs over the registry. 2. The backup is whole, and agrees with its own entries, the log's keys
    and the quorum. 3. It is no smaller than what the signer signed and what a witness has seen, and continues
    both. Raises ``RolledBack`` otherwise, and leaves everything as it is.
    """
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    with ExitStack() as stack:
        stack.enter_context(only_sequencer(config))
        stack.enter_context(only_signer(config.keys))
        backup = stack.enter_context(saved(file))
        new = stack.enter_context(beside(config.database_url))
        with new.create() as store:
            fill(backup, store)
            checked = check_store(store.read, config.origin, policy)
            memory = recall(config.keys / NAME)
            check_memory(store, memory)
            check_witnesses(config, policy, transport, store, memory)
            _add_signature(store, memory)
        config.scrub.unlink(missing_ok=True)
        new.settle()
    return checked


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
