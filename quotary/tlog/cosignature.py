"""What a cosigner signs (c2sp.org/tlog-cosignature): Ed25519 (type 0x04) and ML-DSA-44 (type 0x06).

A cosignature is eight big-endian bytes of POSIX seconds and the signature. The Ed25519 message covers the
note's text; the ML-DSA-44 message covers the cosigner's name and any subtree of the log, of which a
checkpoint is one.
"""

from quotary.errors import Malformed
from quotary.tlog.checkpoint import Checkpoint, Signer
from quotary.tlog.merkle import HASH_LENGTH, MAX_SIZE

TIME_LENGTH = 8
MAX_TIME = 2**63 - 1

_SUBTREE_LABEL = b"subtree/v1\n\x00"


def ed25519_message(text: str, time: int) -> bytes:
    """Return what type 0x04 signs over a note's ``text`` at ``time`` (POSIX seconds)."""
    return b"cosignature/v1\ntime %d\n" % _checked(time) + text.encode()


def checkpoint_message(cosigner: str, time: int, checkpoint: Checkpoint) -> bytes:
    """Return what type 0x06 signs over a checkpoint: the subtree from 0 to its size."""
    return subtree_message(cosigner, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root)


def subtree_message(cosigner: str, time: int, origin: str, start: int, end: int, root: bytes) -> bytes:
    """Return what type 0x06 signs over entries ``[start, end)`` of the log ``origin``.

    time: POSIX seconds; 0 makes no statement about the newest tree, and is demanded where start is not 0
    """
    if not 0 <= start <= end <= MAX_SIZE or len(root) != HASH_LENGTH:
        raise Malformed(f"entries {start} to {end} with a root of {len(root)} bytes are not a subtree")
    if start and time:
        raise Malformed("a subtree that does not start at 0 is signed without a time")
    return b"".join(
        [
            _SUBTREE_LABEL,
            _short(cosigner, "cosigner name"),
            _checked(time).to_bytes(8),
            _short(origin, "origin"),
            start.to_bytes(8),
            end.to_bytes(8),
            root,
        ]
    )


def cosign(text: str, key: Signer, time: int) -> str:
    """Return the line to append to the note of the checkpoint ``text``; ``time`` above 0, in POSIX seconds.

    The caller has verified that this checkpoint continues everything it has cosigned before.
    """
    Checkpoint.parse(text)
    if not 0 < time <= MAX_TIME:
        raise Malformed(f"a cosignature is not made at time {time}")
    return key.line(text, time)


def join(time: int, signature: bytes) -> bytes:
    """Return time and signature as they stand in a note's line."""
    return _checked(time).to_bytes(TIME_LENGTH) + signature


def split(data: bytes) -> tuple[int, bytes]:
    """Return the time (POSIX seconds) and the signature of a note's line."""
    return _checked(int.from_bytes(data[:TIME_LENGTH])), data[TIME_LENGTH:]


def _checked(time: int) -> int:
    if not 0 <= time <= MAX_TIME:
        raise Malformed(f"a cosignature has no time {time}")
    return time


def _short(text: str, what: str) -> bytes:
    data = text.encode()
    if not 1 <= len(data) <= 255:
        raise Malformed(f"a {what} has 1 to 255 bytes, found {len(data)}")
    return bytes([len(data)]) + data
