"""Rebuild a registry's database from a copy of its published log (``registry recover --from-mirror``).

A mirror needs no trust: its checkpoint must stand under the log's own keys and quorum, its entries must
hash to that checkpoint, and every state entry must be the one that F1 gives.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from quotary.errors import CannotTell, Malformed, Refused, Rejected
from quotary.net.transport import Limits, Request, Transport
from quotary.statements.state_entry import state_of
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy, VerifiedCheckpoint
from quotary.tlog.tiles import TILE_WIDTH, decode_entry_bundle, entries_path, root_at
from registry.batch import Intervals, append_only
from registry.config import Config
from registry.errors import RolledBack
from registry.fsck import Checked, check_store
from registry.memory import NOTHING_SIGNED, SignedHead, keep, recall
from registry.orders import ended
from registry.sequence import only_sequencer
from registry.sequencer import MAX_BATCH
from registry.signer import only_signer
from registry.store import EMPTY_HEAD, Batch, Head, Published, Signed, Store, Waiting
from registry.store.beside import beside
from registry.tree import StoredTiles
from registry.witnesses import NEXT, Rounds

LIMITS = Limits(length=TILE_WIDTH * 65_537, total_seconds=120.0)


class Mirror(Protocol):
    """Somewhere the public files of a log lie."""

    def get(self, path: str) -> bytes:
        """Give the file at a path such as ``tile/entries/000``, or raise ``CannotTell``."""
        ...


class Folder:
    """A mirror on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise CannotTell(f"the mirror has no {path}: {error.strerror}") from error


class Site:
    """A mirror behind an address, or a registry that still serves."""

    def __init__(self, url: str, transport: Transport) -> None:
        self._url = url.rstrip("/")
        self._transport = transport

    def get(self, path: str) -> bytes:
        reply = self._transport.send(Request(f"{self._url}/{path}", limits=LIMITS))
        if reply.status != 200:
            raise CannotTell(f"the mirror answers {reply.status} for {path}")
        return reply.body


def open_mirror(place: str, transport: Transport) -> Mirror:
    """Read an address or a folder."""
    return Site(place, transport) if place.startswith(("http://", "https://")) else Folder(Path(place))


def recover_log(config: Config, mirror: Mirror, transport: Transport, forget_unpublished: bool) -> Checked:
    """Rebuild the database from ``mirror``, move the signer's memory to its checkpoint, say what was checked.

    1. Nothing runs over the registry. 2. The mirror's checkpoint is this log's, under every key and the
    quorum of its policy. 3. The entries hash to it, and F1 gives its state entries. 4. It holds what the
    signer signed and what every witness that answers has seen. 5. fsck agrees. Only then the memory moves,
    and after it the database: a crash between the two leaves a signer that refuses.
    """
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    with only_sequencer(config), only_signer(config.keys):
        verified = policy.verify(note := mirror.get("checkpoint"))
        if verified.checkpoint.origin != config.origin:
            raise Refused("log origin", verified.checkpoint.origin, config.origin)
        with beside(config.database_url) as new:
            with closing(new.create()) as store:
                rebuild(store, config.origin, verified.checkpoint, mirror)
                head = _check_seen(config, policy, transport, store, verified, forget_unpublished)
                store.write.add_signed(Signed(head.size, head.root, head.note), 0)
                at = verified.quorum_time or 0
                store.write.publish(Published(head.size, note, at))
                checked = check_store(store.read, config.origin, policy)
            keep(config.keys / "signed-head.json", head)
            config.scrub.unlink(missing_ok=True)
            new.settle()
    return checked


def rebuild(store: Store, origin: str, checkpoint: Checkpoint, mirror: Mirror) -> None:
    """Fill an empty database with the entries of a checkpoint, as the sequencer would have."""
    store.write.create(EMPTY_HEAD)
    work = _Rebuild(store, origin)
    for entry in _entries(mirror, checkpoint.size):
        work.take(entry)
    found = work.head
    if (found.size, found.root) != (checkpoint.size, checkpoint.root):
        raise Rejected(
            "mirror",
            f"{found.size} entries with root {found.root.hex()}",
            f"{checkpoint.size} with root {checkpoint.root.hex()}",
        )


class _Rebuild:
    """Repeats what the sequencer did, one interval after the other."""

    def __init__(self, store: Store, origin: str) -> None:
        self.head: Head = EMPTY_HEAD
        self._store = store
        self._intervals = Intervals(origin, store.read)
        self._waiting: list[Waiting] = []

    def take(self, entry: bytes) -> None:
        state = state_of(entry)
        if state is None:
            self._waiting.append(Waiting(0, leaf_hash(entry), entry))
            if len(self._waiting) == MAX_BATCH:
                self._write(append_only(self.head, self._waiting))
            return
        if state.ts < self.head.ts:
            raise Rejected("log time", str(state.ts), f"{self.head.ts} or later")
        batch = self._intervals.close(self.head, self._waiting, state.ts, state.end)
        made = batch.entries[-1][1]
        if made != entry:
            raise Rejected(f"state entry at {state.index}", entry.hex()[:200], made.hex()[:200])
        self._write(batch)

    def _write(self, batch: Batch) -> None:
        self._store.write.integrate(batch)
        self.head, self._waiting = batch.head, []


def _entries(mirror: Mirror, size: int) -> Iterator[bytes]:
    for start in range(0, size, TILE_WIDTH):
        width = min(TILE_WIDTH, size - start)
        yield from decode_entry_bundle(mirror.get(entries_path(start // TILE_WIDTH, width)), width=width)


def _check_seen(
    config: Config,
    policy: TlogPolicy,
    transport: Transport,
    store: Store,
    verified: VerifiedCheckpoint,
    forget_unpublished: bool,
) -> SignedHead:
    """Compare the rebuilt log with the signer's memory and the witnesses, and give its new memory."""
    memory, size, tiles = _memory(config), verified.checkpoint.size, StoredTiles(store.read)
    urls = [witness.url for witness in policy.witnesses.values() if witness.url]
    seen = Rounds(transport, urls, policy.logs).newest(config.origin)
    if not seen and (urls or memory is None):
        raise CannotTell("no witness answers, so nobody can say whether the mirror is the newest")
    heads = [(f"witness {url}", found.size, found.root) for url, found in seen.items() if found]
    drops = forget_unpublished and bool(urls) and len(seen) == len(urls)
    if memory is not None and not (drops and memory.size > size):
        heads.append(("the signer", memory.size, memory.root))
    for who, known, root in heads:
        if known > size:
            raise RolledBack(f"size at {who}", str(known), f"at most the mirror's {size}", next_command=NEXT)
        if known and root_at(known, tiles) != root:
            raise RolledBack(f"root of size {known} at {who}", root.hex(), "the mirror's", next_command=NEXT)
    final = ended(store.read, store.read.head()) is not None
    return SignedHead(size, verified.checkpoint.root, _own_lines(verified.note, policy), final)


def _memory(config: Config) -> SignedHead | None:
    path = config.keys / "signed-head.json"
    if not path.exists():
        return None
    found = recall(path)
    return None if found == NOTHING_SIGNED else found


def _own_lines(note: Note, policy: TlogPolicy) -> bytes:
    """Give the note with the log's own signature lines only, as its signer made it."""
    known = {(key.name, key.key_id) for key in policy.logs}
    lines = tuple(line for line in note.signatures if (line.name, line.key_id) in known)
    if len(lines) != len(policy.logs):
        raise Malformed("the checkpoint does not carry each log key's signature once")
    return bytes(Note(note.text, lines))
