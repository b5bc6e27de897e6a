"""Rebuild a registry's database from a copy of its published log: ``recover --from-mirror``, ``import``.

A mirror needs no trust: its checkpoint must stand under the log's own keys and quorum, its entries must
hash to that checkpoint, and every state entry must be the one that F1 gives.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from quotary.errors import CannotTell, Malformed, Refused
from quotary.net.transport import Limits, Request, Transport
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy, VerifiedCheckpoint
from quotary.tlog.tiles import TILE_WIDTH, decode_entry_bundle, entries_path, root_at
from registry.config import Config
from registry.errors import RolledBack
from registry.fsck import Checked, check_store
from registry.load import derive, load_entries
from registry.memory import NAME, NOTHING_SIGNED, SignedHead, keep, recall
from registry.orders import ended
from registry.sequence import only_sequencer
from registry.signer import only_signer
from registry.store import Published, Signed, Store, open_store
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


def import_log(config: Config, mirror: Mirror, transport: Transport) -> Checked:
    """Fill a registry that holds no log yet, as ``recover_log`` does; keys and policy are the log's own."""
    with closing(open_store(config.database_url)) as store:
        head = store.read.head()
    if head is not None and head.size:
        raise Refused(
            "registry",
            f"a log of {head.size} entries",
            "one that is new and empty",
            next_command="quotary registry recover --from-mirror",
        )
    return recover_log(config, mirror, transport, False)


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
            with new.create() as store:
                load_entries(store, verified.checkpoint, entries_of(mirror, verified.checkpoint.size))
                derive(store, config.origin, verified.checkpoint.size)
                head = _check_seen(config, policy, transport, store, verified, forget_unpublished)
                store.write.add_signed(Signed(head.size, head.root, head.note), 0)
                at = verified.quorum_time or 0
                store.write.publish(Published(head.size, note, at))
                checked = check_store(store.read, config.origin, policy)
            keep(config.keys / NAME, head)
            config.scrub.unlink(missing_ok=True)
            new.settle()
    return checked


def entries_of(mirror: Mirror, size: int) -> Iterator[bytes]:
    """Give a mirror's entries in log order; nobody has checked them."""
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
    path = config.keys / NAME
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
