"""Proofs of one entry as a file: index, path and checkpoint (c2sp.org/tlog-proof)."""

import re
from dataclasses import dataclass

from quotary.canonical import b64, unb64
from quotary.errors import Malformed
from quotary.tlog.merkle import HASH_LENGTH, MAX_SIZE, leaf_hash, verify_inclusion
from quotary.tlog.policy import TlogPolicy, VerifiedCheckpoint

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_LENGTH = 2_000_000
MAX_PATH = 63

_INDEX = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Enough to check one entry offline.

    index:           position of the entry, from 0
    path:            32-byte hashes, the leaf's sibling first
    checkpoint_note: the signed checkpoint, byte for byte
    extra:           whatever the maker added; nobody signed it. None where there is no such line
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint_note: bytes
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> "TlogProof":
        """Read a ``.tlog-proof`` file of at most 2,000,000 bytes; the note in it is left to the policy."""
        if len(data) > MAX_PROOF_LENGTH:
            raise Malformed(f"proof has {len(data)} bytes, at most {MAX_PROOF_LENGTH} are allowed")
        head, separator, note = data.partition(b"\n\n")
        try:
            header, *lines = head.decode("ascii").split("\n", MAX_PATH + 3)
        except UnicodeDecodeError as error:
            raise Malformed("the proof's own lines are not ASCII") from error
        if header != HEADER or not separator:
            raise Malformed(f"a proof starts with {HEADER} and holds a checkpoint behind an empty line")
        extra = unb64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
        word, _, index = lines.pop(0).partition(" ") if lines else ("", "", "")
        if word != "index" or _INDEX.fullmatch(index) is None or int(index) >= MAX_SIZE:
            raise Malformed("the proof has no index line in canonical decimal")
        if len(lines) > MAX_PATH:
            raise Malformed(f"the path has more than the {MAX_PATH} hashes that are possible")
        return cls(int(index), tuple(unb64(line, length=HASH_LENGTH) for line in lines), note, extra)

    def __bytes__(self) -> bytes:
        extra = "" if self.extra is None else f"extra {b64(self.extra)}\n"
        path = "".join(b64(node) + "\n" for node in self.path)
        return f"{HEADER}\n{extra}index {self.index}\n{path}\n".encode() + self.checkpoint_note

    def verify(self, entry: bytes, policy: TlogPolicy, *, now: int | None = None) -> VerifiedCheckpoint:
        """Return the checkpoint under which ``entry`` stands at ``index`` and that ``policy`` accepts.

        1. The policy accepts the checkpoint (``now``: POSIX seconds, see ``TlogPolicy.verify``).
        2. The path leads from the entry's leaf hash at the index to the checkpoint's root.
        """
        verified = policy.verify(self.checkpoint_note, now=now)
        checkpoint = verified.checkpoint
        verify_inclusion(self.index, checkpoint.size, leaf_hash(entry), self.path, checkpoint.root)
        return verified
