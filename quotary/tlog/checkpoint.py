"""Checkpoints: what a log commits to, and the note that carries it (c2sp.org/tlog-checkpoint)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from quotary.canonical import b64, unb64
from quotary.errors import Malformed
from quotary.tlog.merkle import HASH_LENGTH, MAX_SIZE


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: ``size`` entries hash to ``root``.

    origin: unique name of the log, e.g. ``log.example.org/measurements``
    size:   number of entries, 0 or more
    root:   32 bytes, RFC 9162 section 2.1.1
    """

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note: three lines, each ended by a line feed; extension lines are refused."""
        try:
            origin, size, root, _ = text.split("\n")
            found = cls(origin, int(size), unb64(root, length=HASH_LENGTH))
        except ValueError as error:
            raise Malformed("a checkpoint has three lines: origin, size, root") from error
        # Reprinting is the whole canonicality check: it refuses "+5", "05" and a missing last line feed.
        if not origin or not 0 <= found.size <= MAX_SIZE or str(found) != text:
            raise Malformed("not a canonical checkpoint")
        return found

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"


class Signer(Protocol):
    """A key that signs notes: one held here, or one behind a socket or in a device."""

    def line(self, text: str, time: int) -> str:
        """Return the signature line over ``text``; ``time`` in POSIX seconds, for types that carry one."""


def sign_checkpoint(checkpoint: Checkpoint, signers: Iterable[Signer], time: int) -> bytes:
    """Return the note over ``checkpoint`` with one line per signer, in their order."""
    text = str(checkpoint)
    return (text + "\n" + "".join(signer.line(text, time) for signer in signers)).encode()
