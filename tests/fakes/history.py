"""What the world has seen of a log, and what must still be true of it after any fault (docs/faults.md)."""

from dataclasses import dataclass, field
from pathlib import Path

from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash, root_of
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from registry.config import Config
from registry.fsck import Checked, check_store
from registry.memory import recall
from registry.store import Reader, Store


@dataclass(slots=True)
class History:
    """Entries that were acknowledged, and the roots that left the registry under a signature.

    signed: size to root
    asked:  the same for what the signer was asked to sign, and may have signed
    """

    acknowledged: set[bytes] = field(default_factory=set)
    signed: dict[int, bytes] = field(default_factory=dict)
    asked: dict[int, bytes] = field(default_factory=dict)

    def acknowledge(self, *entries: bytes) -> None:
        self.acknowledged.update(map(leaf_hash, entries))

    def see(self, note: bytes) -> None:
        """Remember a checkpoint; another root for a size that was seen is a fork."""
        found = Checkpoint.parse(Note.parse(note).text)
        assert self.signed.setdefault(found.size, found.root) == found.root, f"two roots of size {found.size}"

    def see_all(self, store: Store, memory: Path, *seen: Path) -> None:
        """Remember what the database, the signer and the witnesses' files show."""
        notes = [signed.note for signed in store.read.all_signed()]
        published = store.read.published()
        notes += [published.note] if published else []
        notes += [recall(memory).note] if recall(memory).note else []
        notes += [path.read_bytes() for folder in seen for path in folder.glob("*")]
        for note in notes:
            self.see(note)


def check(read: Reader, history: History, memory: Path | None = None) -> None:
    """Nothing acknowledged is lost or doubled, no root changed, and the signer is not ahead of the database."""
    head = read.head()
    assert head is not None
    hashes = read.leaf_hashes(0, head.size)
    assert len(hashes) == head.size
    assert len(set(hashes)) == head.size, "an entry stands twice"
    waiting = {row.leaf_hash for row in read.waiting(100_000)}
    assert history.acknowledged <= waiting | set(hashes), "an acknowledged entry is lost"
    for size, root in (*history.signed.items(), *history.asked.items()):
        assert size <= head.size, f"size {size} was signed, the database has {head.size}"
        assert root_of(hashes[:size]) == root, f"another root of size {size}"
    if memory is not None:
        last, signed = recall(memory), read.signed()
        assert last.size <= head.size, "the signer is ahead of the database"
        assert last.size >= max([signed.size if signed else 0, *history.signed]), "the signer has forgotten"
        assert root_of(hashes[: last.size]) == last.root


def fsck(config: Config, store: Store) -> Checked:
    """The whole of ``registry fsck``."""
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    return check_store(store.read, config.origin, policy, config.public)
