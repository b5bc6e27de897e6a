"""What an auditor found to be wrong, as an exception and as a file that others can check without us.

The file (``docs/audit.md``) is canonical JSON: the check by name, what was found and wanted, the signed
checkpoints that the log cannot deny, and the bytes that contradict them.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import b64, canonical
from quotary.client.trust import write_private
from quotary.errors import CannotTell, Rejected

TYPE = "quotary/finding/v1"

CHECKS = (
    "checkpoint",
    "cross-check",
    "entry bundle",
    "fork",
    "genesis",
    "leaf hash",
    "map root",
    "order",
    "rollback",
    "root",
    "state",
    "succession",
    "tile",
)
"""Every name that a finding can have."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One piece of evidence.

    name: ``checkpoint``, ``remembered`` (a signed note seen before), ``predecessor`` (the
          last note of the log before), ``entry <index>``, ``path <index>``
          (inclusion path of that entry, 32 bytes a hash), or the path of a tile
    """

    name: str
    data: bytes


class Finding(Rejected):
    """The log contradicts itself or its specification; ``check`` is one of ``CHECKS``."""

    def __init__(self, check: str, found: str, wanted: str, exhibits: Iterable[Exhibit] = ()) -> None:
        assert check in CHECKS
        super().__init__(check, found, wanted)
        self.exhibits = tuple(exhibits)

    def encode(self, origin: str) -> bytes:
        """Write the evidence file."""
        return canonical(
            {
                "v": 1,
                "type": TYPE,
                "origin": origin,
                "check": self.check,
                "found": self.found,
                "wanted": self.wanted,
                "exhibits": [{"name": item.name, "data": b64(item.data)} for item in self.exhibits],
            }
        )


def keep(finding: Finding, origin: str, folder: Path) -> Path:
    """Store a finding under the digest of its bytes (mode 0600), and give the file."""
    data = finding.encode(origin)
    name = f"{finding.check.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:16]}.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotTell(f"cannot make {folder}: {error.strerror}") from error
    write_private(folder / name, data)
    return folder / name
