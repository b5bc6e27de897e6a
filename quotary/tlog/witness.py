"""What a witness is asked, and when it may say yes (c2sp.org/tlog-witness): shared by every cosigner here."""

from dataclasses import dataclass

from quotary.canonical import unb64
from quotary.errors import InvalidProof, Malformed, NotAuthorised
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import EMPTY_ROOT, HASH_LENGTH, verify_consistency
from quotary.tlog.note import Note

MAX_REQUEST = 1 << 20
MAX_PROOF = 63
SIZE_TYPE = "text/x.tlog.size"


class Conflict(Exception):
    """The request's old size is not the newest that this witness has cosigned, which is ``size``."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the newest cosigned size is {size}")
        self.size = size


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request: the size the log believes we have seen, the proof from it, the signed checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    note_bytes: bytes

    @classmethod
    def parse(cls, body: bytes) -> "AddCheckpoint":
        """Read a request; ``NotAuthorised`` where nobody can have signed the checkpoint."""
        head, separator, note = body.partition(b"\n\n")
        try:
            old, *proof = head.decode("ascii").split("\n", MAX_PROOF + 1)
        except UnicodeDecodeError as error:
            raise Malformed("the lines above the checkpoint are not ASCII") from error
        word, _, size = old.partition(" ")
        canonical = size.isascii() and size.isdigit() and len(size) < 20 and str(int(size)) == size
        if not separator or word != "old" or not canonical or len(proof) > MAX_PROOF:
            raise Malformed(
                "a request is a line 'old SIZE', at most 63 hashes, an empty line and a checkpoint"
            )
        hashes = tuple(unb64(line, length=HASH_LENGTH) for line in proof)
        return cls(int(size), hashes, _note(note), note)


def check_growth(seen: Checkpoint, found: Checkpoint, proof: tuple[bytes, ...]) -> None:
    """Return if ``found`` continues what was cosigned before (size 0: nothing), else ``InvalidProof``."""
    if found.size == 0 and found.root != EMPTY_ROOT:
        raise InvalidProof("an empty log has the hash of nothing as its root")
    if seen.size == 0 or seen.size == found.size:
        if proof:
            raise InvalidProof(f"no consistency proof is needed from {seen.size}, found {len(proof)} hashes")
        if seen.size == found.size and seen.size and seen.root != found.root:
            raise InvalidProof(f"another root at the size {seen.size}")
        return
    try:
        verify_consistency(seen.size, found.size, seen.root, found.root, proof)
    except Malformed as error:
        raise InvalidProof(f"consistency proof: {error}") from error


def _note(data: bytes) -> Note:
    """Parse a note; where only its signature lines cannot be read, nobody has signed it: 403, not 400."""
    try:
        return Note.parse(data)
    except Malformed as error:
        text, _, lines = data.rpartition(b"\n\n")
        if not text or not lines.startswith("\u2014 ".encode()):
            raise
        raise NotAuthorised(f"invalid signature: {error}") from error
