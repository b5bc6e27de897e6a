"""What the store takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import EMPTY_ROOT
from quotary.tlog.trie import EMPTY


@dataclass(frozen=True, slots=True)
class Head:
    """The committed end of the log, ahead of what is signed and published.

    epoch:       counts takeovers by sequencers
    size:        number of entries; root: 32 bytes over them
    frontier:    open tiles of every level (``quotary.tlog.tiles.Frontier``)
    trie_root:   root of the status map under the newest state entry
    ts:          log time of the newest state entry, integer seconds; 0 before the first
    state_index: index of the newest state entry; -1 before the first
    """

    epoch: int
    size: int
    root: bytes
    frontier: bytes
    trie_root: bytes
    ts: int
    state_index: int


EMPTY_HEAD = Head(0, 0, EMPTY_ROOT, bytes(Frontier()), EMPTY, 0, -1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An admitted entry that the sequencer has not taken yet.

    seal: what a judge found out about it (``registry/seal.py``); None where nobody says anything
    """

    id: int
    leaf_hash: bytes
    data: bytes
    seal: bytes | None = None


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What F1 made of the statement at ``index`` when the state entry ``closed_by`` closed the interval."""

    index: int
    closed_by: int
    kind: str
    service: str
    sequence: int
    statement_id: str
    effect: bool
    code: str


@dataclass(slots=True)
class StateRows:
    """All rows of the tables ``holder``, ``denied`` and ``signer``, column by column."""

    holder: set[tuple[bytes, str, int]] = field(default_factory=set)
    denied: set[tuple[bytes, str, int]] = field(default_factory=set)
    signer: set[tuple[bytes, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one sequencing transaction writes; ``head`` replaces ``old``.

    entries: (leaf hash, bytes), from index ``old.size`` on
    tiles:   (level, number, 8192 bytes), newly full ones only
    done:    ids of ``pending`` rows that are now logged
    holders: (measurement id, service) of records that were not there before
    denied:  measurement ids that no service may use from now on, with the reason
    signers: (key, 32 bytes; index) for each signature of an effective release or rebuild
    """

    old: Head
    head: Head
    entries: tuple[tuple[bytes, bytes], ...]
    tiles: tuple[tuple[int, int, bytes], ...]
    done: tuple[int, ...]
    nodes: Mapping[bytes, bytes] = field(default_factory=dict)
    records: Mapping[bytes, bytes] = field(default_factory=dict)
    outcomes: tuple[OutcomeRow, ...] = ()
    terms: frozenset[tuple[str, int]] = frozenset()
    holders: frozenset[tuple[bytes, str]] = frozenset()
    denied: Mapping[bytes, str] = field(default_factory=dict)
    signers: frozenset[tuple[bytes, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint with the log's own signatures; ``note`` is the exact signed note."""

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """The checkpoint that the public sees: signed and cosigned by a quorum.

    at: Unix time when the round of cosignatures was complete, in seconds
    """

    size: int
    note: bytes
    at: int
