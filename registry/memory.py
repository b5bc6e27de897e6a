"""What the signer remembers: the last head that it signed, on disk before anybody hears of it.

The file carries a digest of itself, so that a bit that flipped on the disk is an error and not another head.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.errors import CannotTell, Malformed
from quotary.tlog.merkle import EMPTY_ROOT
from registry.keys import write_durably

MAX_MEMORY = 65_536
NAME = "signed-head.json"


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The newest head under the log's signatures; ``note`` is empty before the first.

    final: the log has ended with it, and nothing larger is signed
    at:    when it was signed, POSIX seconds; 0 where that is not known
    """

    size: int
    root: bytes
    note: bytes
    final: bool = False
    at: int = 0


NOTHING_SIGNED = SignedHead(0, EMPTY_ROOT, b"")


def create_memory(path: Path) -> None:
    """Write that nothing was signed yet; only ``registry init`` may do so."""
    keep(path, NOTHING_SIGNED)


def recall(path: Path) -> SignedHead:
    """Read the last signed head; a signer without memory does not sign at all."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CannotTell(
            f"the signer's memory {path} cannot be read: {error.strerror}",
            next_command="restore it beside the keys; a signer that has forgotten could fork the log",
        ) from error
    fields = Fields(document := parse_canonical(data, MAX_MEMORY), "signer's memory")
    # Version 1 had no digest; it is read until the next signature replaces it.
    if fields.integer("v", 1, 2) == 2 and fields.hexbytes("sha256", 32).hex() != _digest(document):
        raise Malformed(f"{path} was changed since the signer wrote it")
    found = SignedHead(
        fields.integer("size"),
        fields.hexbytes("root", 32),
        fields.optional("note", fields.base64) or b"",
        fields.optional("final", fields.boolean) or False,
        fields.optional("at", fields.integer) or 0,
    )
    fields.done()
    return found


def keep(path: Path, head: SignedHead) -> None:
    """Replace the memory durably."""
    document: dict[str, object] = {"v": 2, "size": head.size, "root": head.root.hex()}
    if head.note:
        document["note"] = b64(head.note)
    if head.final:
        document["final"] = True
    if head.at:
        document["at"] = head.at
    write_durably(path, canonical({**document, "sha256": _digest(document)}))


def _digest(document: object) -> str:
    assert isinstance(document, Mapping)
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(canonical(rest)).hexdigest()
