"""What a location notice says: which machines stand where, and how that is known."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from quotary.canonical import Fields, time_text
from quotary.errors import Malformed
from quotary.statements.notice import MAX_ITEMS, Notice

KIND = "location"
MAX_LIFETIME = timedelta(days=31)
# How somebody knows: weakest first. Nothing here is measured.
CLASSES = ("operators-word", "cloud-document", "auditors-visit")
OPERATORS_WORD = CLASSES[0]


@dataclass(frozen=True, slots=True)
class Location:
    """Machines in one place.

    machines: identities in hex, as facts of evidence name them (PPID, chip id)
    place:    a code of the signer's, e.g. ``de-fra-1``
    evidence: one of ``CLASSES``
    document: SHA-256 of what it rests on, 32 bytes; None for an operator's word, and only there
    valid from not_before up to and without not_after, at most 31 days
    """

    machines: tuple[str, ...]
    place: str
    evidence: str
    document: bytes | None
    not_before: datetime
    not_after: datetime

    def members(self) -> Mapping[str, object]:
        """Write the predicate's members ``items`` and ``data``, or raise ``Malformed``."""
        data: dict[str, object] = {
            "place": self.place,
            "class": self.evidence,
            "not_before": time_text(self.not_before),
            "not_after": time_text(self.not_after),
        }
        if self.document is not None:
            data["document"] = self.document.hex()
        _check(self)
        return {"items": [_item(machine) for machine in self.machines], "data": data}


def parse_location(notice: Notice) -> Location:
    """Read a notice's content, or raise ``Malformed``."""
    fields = Fields(dict(notice.data or {}), KIND)
    found = Location(
        tuple(item.name for item in notice.items),
        fields.name("place", 64),
        fields.choice("class", *CLASSES),
        fields.optional("document", lambda name: fields.hexbytes(name, 32)),
        fields.time("not_before"),
        fields.time("not_after"),
    )
    fields.done()
    _check(found)
    digests = [hashlib.sha256(name.encode()).digest() for name in found.machines]
    if digests != [item.sha256 for item in notice.items]:
        raise Malformed("a location's item is not a machine with the digest of its identity")
    return found


def _check(found: Location) -> None:
    if not 1 <= len(found.machines) <= MAX_ITEMS:
        raise Malformed(f"a location names {len(found.machines)} machines, 1 to {MAX_ITEMS} can be")
    if not timedelta(0) < found.not_after - found.not_before <= MAX_LIFETIME:
        raise Malformed(f"a location is valid for more than {MAX_LIFETIME.days} days, or for none")
    if (found.document is None) != (found.evidence == OPERATORS_WORD):
        raise Malformed("every class but an operator's word rests on a document, and that one on none")


def _item(machine: str) -> Mapping[str, object]:
    return {"name": machine, "sha256": hashlib.sha256(machine.encode()).hexdigest()}
