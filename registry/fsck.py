"""Recompute everything from the entries, and compare it with what is stored (``registry fsck``)."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quotary.errors import CannotTell, Rejected
from quotary.statements.f1 import F1
from quotary.statements.order import check_interval
from quotary.statements.state_entry import StateEntry, state_of
from quotary.tlog import trie
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import parse_tile_path, width_at
from registry.batch import holders_in, outcome_row, signers_in
from registry.opening import Opening
from registry.public import PublicLog
from registry.store import Head, Published, Reader, Signed, StateRows

CHUNK = 1024
RECOVER = "quotary registry recover --from-mirror DIR|URL"
REINDEX = "quotary registry reindex"
TERMS_WINDOW = 32_768


@dataclass(frozen=True, slots=True)
class Checked:
    """What was recomputed and found equal."""

    entries: int
    states: int
    tiles: int
    records: int
    checkpoints: int
    published: int
    files: int = 0


def check_store(read: Reader, origin: str, policy: TlogPolicy, public: Path | None = None) -> Checked:
    """Recompute leaf hashes, tiles, roots, map, records, outcomes, F1's state and checkpoints, or raise
    ``Rejected``.

    public: the folder of exported files; its tiles, entry bundles and checkpoint are compared too
    """
    # A running registry adds meanwhile, beyond this walk: so what is smallest is read first.
    seen = read.published()
    walk = _Walk(read, origin, policy)
    head = read.head()
    if head is None:
        raise CannotTell("the database holds no log", next_command="quotary registry init")
    while walk.frontier.size < head.size:
        walk.chunk(head.size)
    walk.compare_head(head)
    published = _check_published(seen, policy, walk)
    files = _check_files(read, policy, walk, public, published) if public is not None else 0
    return Checked(head.size, walk.states, walk.tiles, len(walk.records), walk.checkpoints, published, files)


class _Walk:
    """The log, built again beside the database."""

    def __init__(self, read: Reader, origin: str, policy: TlogPolicy) -> None:
        self.read = read
        self.origin = origin
        self.end: str | None = None
        self.policy = policy
        self.frontier = Frontier()
        self.f1 = F1(origin)
        self.interval: list[bytes] = []
        self.state = StateRows()
        self.nodes = _Nodes()
        self.trie_root = trie.EMPTY
        self.records: dict[bytes, bytes] = {}
        self.roots: dict[int, bytes] = {}
        self.states = self.tiles = self.checkpoints = self.ts = 0
        self.terms: set[tuple[str, int]] = set()
        self.terms_from = 0
        self.signed = {signed.size: signed for signed in read.all_signed()}

    def chunk(self, size: int) -> None:
        start, stop = self.frontier.size, min(self.frontier.size + CHUNK, size)
        entries, hashes = self.read.entries(start, stop), self.read.leaf_hashes(start, stop)
        _same("entries", len(entries), stop - start)
        for index, (entry, stored) in enumerate(zip(entries, hashes, strict=True), start):
            _same(f"leaf hash of entry {index}", stored.hex(), leaf_hash(entry).hex())
            self._entry(entry, stored)

    def compare_head(self, head: Head) -> None:
        _same("root of the head", head.root.hex(), self.frontier.root().hex())
        _same("frontier of the head", head.frontier, bytes(self.frontier))
        _same("map root of the head", head.trie_root.hex(), self.trie_root.hex())
        _same("time of the head", head.ts, self.ts)
        self._compare_terms(head.state_index + 1)
        stored = self.read.records(head.size)
        _same("records", sorted(stored), sorted(self.records.values()))
        found = self.read.state_rows(head.size)
        for name in StateRows.__slots__:
            _same(f"rows of the table {name}", getattr(found, name), getattr(self.state, name))
        beyond = [size for size in self.signed if size > head.size]
        _same("signed checkpoints beyond the head", beyond, [])

    def _entry(self, entry: bytes, digest: bytes) -> None:
        self.frontier, full = self.frontier.append([digest])
        for tile in full:
            _same(f"tile {tile.level}/{tile.n}", self.read.tile(tile.level, tile.n), tile.data)
            self.tiles += 1
        state = state_of(entry)
        if state is None:
            self.interval.append(entry)
            return
        _same("size in a state entry", state.index, self.frontier.size - 1)
        if state.ts < self.ts:
            raise Rejected("log time", str(state.ts), f"{self.ts} or later")
        _same("entries after the end of the log", self.end, None)
        waiting = enumerate(self.interval, state.index - len(self.interval))
        check_interval(self.origin, waiting, state, self.f1.log_delegation)
        self.end = state.end
        self._interval(state)
        self.ts, self.states = state.ts, self.states + 1
        self._checkpoint()

    def _interval(self, state: StateEntry) -> None:
        first, closed_by = state.index - len(self.interval), state.index
        opening = Opening.of(self.interval, first)
        opened = opening.opened
        closed = self.f1.decide(opened.items(), state.ts)
        self.interval = []
        values = {key: hashlib.sha256(record).digest() for key, record in closed.changes.items()}
        self.trie_root = trie.update(self.nodes, self.trie_root, values)
        _same(f"map root at size {self.frontier.size}", state.maps["F1"].hex(), self.trie_root.hex())
        stored = self.read.nodes(list(self.nodes.new))
        for digest, data in self.nodes.new.items():
            _same(f"trie node {digest.hex()}", stored.get(digest), data)
        self.nodes.new = {}
        records = self.read.records_at(list(closed.changes), closed_by)
        _same("records", sorted(records.items()), sorted(closed.changes.items()))
        self.records.update(closed.changes)
        self.state.holder |= {(*item, closed_by) for item in holders_in(closed, first)}
        self.state.denied |= {(*item, closed_by) for item in closed.denied.items()}
        self.state.signer |= signers_in(closed, opened)
        self.terms |= opening.terms
        if closed_by + 1 - self.terms_from >= TERMS_WINDOW:
            self._compare_terms(closed_by + 1)
        for outcome in closed.outcomes:
            wanted = outcome_row(outcome, opened[outcome.index], closed_by)
            _same(f"outcome of entry {outcome.index}", self.read.outcome(outcome.index), wanted)

    def _compare_terms(self, stop: int) -> None:
        found = self.read.terms(self.terms_from, stop)
        _same("rows missing in the search index", sorted(self.terms - found)[:1], [], REINDEX)
        _same("surplus rows in the search index", sorted(found - self.terms)[:1], [], REINDEX)
        self.terms, self.terms_from = set(), stop

    def _checkpoint(self) -> None:
        size, root = self.frontier.size, self.frontier.root()
        self.roots[size] = root
        if (signed := self.signed.get(size)) is not None:
            _same(f"signed root of size {size}", signed.root.hex(), root.hex())
            _check_note(signed, Checkpoint(self.origin, size, root), self.policy)
            self.checkpoints += 1


class _Nodes(trie.MemoryStore):
    """Also says what was put since the last interval."""

    def __init__(self) -> None:
        super().__init__()
        self.new: dict[bytes, bytes] = {}

    def put(self, node_hash: bytes, data: bytes) -> None:
        super().put(node_hash, data)
        self.new[node_hash] = data


def _check_published(published: Published | None, policy: TlogPolicy, walk: _Walk) -> int:
    if published is None:
        return 0
    checkpoint = policy.verify(published.note).checkpoint
    _same("published size", published.size, checkpoint.size)
    _same("published root", checkpoint.root.hex(), _root(walk, checkpoint.size))
    own = walk.signed[checkpoint.size].note if checkpoint.size in walk.signed else published.note
    _same("the log's own lines of the published checkpoint", published.note[: len(own)], own)
    return checkpoint.size


def _check_note(signed: Signed, wanted: Checkpoint, policy: TlogPolicy) -> None:
    """Compare the signed text, and verify the lines of the keys that the policy still lists."""
    note = Note.parse(signed.note)
    _same(f"signed checkpoint of size {wanted.size}", note.text, str(wanted))
    listed = {(key.name, key.key_id) for key in policy.logs}
    if listed & {(line.name, line.key_id) for line in note.signatures}:
        note.verify(policy.logs)


def _check_files(read: Reader, policy: TlogPolicy, walk: _Walk, folder: Path, published: int) -> int:
    """Compare exported tiles and entry bundles with the database, and the checkpoint with its tree.

    What a running registry exported or removed since this walk began is left out.
    """
    log, count = PublicLog(read), 0
    for file in sorted(path for path in folder.glob("tile/**/*") if path.name[0] != "."):
        if not file.is_file():
            continue
        name = str(file.relative_to(folder))
        path = parse_tile_path(name)
        if path.width <= width_at(path.level or 0, path.n, published):
            _same(f"file {name}", file.read_bytes(), log.tile_bytes(path, published))
            count += 1
    if (file := folder / "checkpoint").exists():
        checkpoint = policy.verify(file.read_bytes()).checkpoint
        if checkpoint.size <= published:
            _same("root of the file checkpoint", checkpoint.root.hex(), _root(walk, checkpoint.size))
        count += 1
    return count


def _root(walk: _Walk, size: int) -> str | None:
    root = walk.roots.get(size)
    return root.hex() if root else None


def _same(check: str, found: object, wanted: object, remedy: str = RECOVER) -> None:
    if found != wanted:
        raise Rejected(check, _short(found), _short(wanted), next_command=remedy)


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 100 else f"{text[:48]}...{text[-48:]}"
