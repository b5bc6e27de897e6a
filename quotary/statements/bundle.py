"""The bundle: everything that a boot check needs of the log, in one file under one checkpoint (design
section 5).

Media type ``application/vnd.quotary.bundle+json``. Parsing proves nothing: who believes a bundle has
verified the checkpoint, then every path against its root, then every trie proof against the state
entry's map root. All paths are to the checkpoint's size.
"""

from dataclasses import dataclass

from quotary.canonical import Fields, b64, canonical, parse_canonical, unb64
from quotary.errors import Malformed

MEDIA_TYPE = "application/vnd.quotary.bundle+json"
MAX_BUNDLE = 4 << 20
MAX_AUTHORITY = 256
MAX_RECORDS = 256
MAX_PATH = 63


@dataclass(frozen=True, slots=True)
class Included:
    """An entry and where it stands; ``path`` is its inclusion path, hashes of 32 bytes from the leaf up."""

    index: int
    entry: bytes
    path: tuple[bytes, ...]

    def document(self) -> dict[str, object]:
        """Give it as it is written."""
        return {"index": self.index, "entry": b64(self.entry), "path": [b64(digest) for digest in self.path]}


@dataclass(frozen=True, slots=True)
class Proven:
    """A record of the status map and the trie proof that the map holds its SHA-256 under its key."""

    record: bytes
    proof: bytes

    def document(self) -> dict[str, object]:
        """Give it as it is written."""
        return {"record": b64(self.record), "proof": b64(self.proof)}


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the log says of one measurement id that its map holds.

    checkpoint: the cosigned note, byte for byte
    state:      the last entry before the checkpoint
    release:    the newest effective release; absent only where the id was revoked before it was released
    authority:  the genesis (index 0), then the service's delegations in log order
    records:    the status, the service, and the floors of the row's platform and devices
    """

    checkpoint: bytes
    state: Included
    release: Included | None
    authority: tuple[Included, ...]
    records: tuple[Proven, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Bundle":
        """Read a bundle; an absence bundle is ``Malformed`` here."""
        found = parse_bundle(data)
        if not isinstance(found, cls):
            raise Malformed("an absence bundle where a bundle is needed")
        return found

    def encode(self) -> bytes:
        """Write the bundle."""
        document: dict[str, object] = {
            "v": 1,
            "checkpoint": b64(self.checkpoint),
            "state": self.state.document(),
            "authority": [item.document() for item in self.authority],
            "records": [item.document() for item in self.records],
        }
        if self.release is not None:
            document["release"] = self.release.document()
        return canonical(document)


@dataclass(frozen=True, slots=True)
class AbsenceBundle:
    """What the log says of a measurement id that its map does not hold.

    key:   the map key that is absent, 32 bytes; proof: the trie's absence proof, empty for the empty map
    """

    checkpoint: bytes
    state: Included
    key: bytes
    proof: bytes

    @classmethod
    def parse(cls, data: bytes) -> "AbsenceBundle":
        """Read an absence bundle; any other bundle is ``Malformed`` here."""
        found = parse_bundle(data)
        if not isinstance(found, cls):
            raise Malformed("a bundle where an absence bundle is needed")
        return found

    def encode(self) -> bytes:
        """Write the bundle."""
        return canonical(
            {
                "v": 1,
                "checkpoint": b64(self.checkpoint),
                "state": self.state.document(),
                "absence": {"key": self.key.hex(), "proof": b64(self.proof)},
            }
        )


def parse_bundle(data: bytes) -> Bundle | AbsenceBundle:
    """Read a bundle of either kind."""
    fields = Fields(parse_canonical(data, MAX_BUNDLE), "bundle")
    fields.integer("v", 1, 1)
    checkpoint = fields.base64("checkpoint")
    state = _included(fields.value("state"), "state")
    found: Bundle | AbsenceBundle
    if fields.has("absence"):
        absence = fields.fields("absence")
        found = AbsenceBundle(checkpoint, state, absence.hexbytes("key", 32), _proof(absence))
        absence.done()
    else:
        found = Bundle(
            checkpoint,
            state,
            _included(fields.value("release"), "release") if fields.has("release") else None,
            tuple(_included(item, "authority") for item in fields.items("authority", MAX_AUTHORITY, low=1)),
            tuple(_proven(item) for item in fields.items("records", MAX_RECORDS, low=1)),
        )
    fields.done()
    return found


def _included(value: object, what: str) -> Included:
    fields = Fields(value, what)
    path = fields.items("path", MAX_PATH)
    found = Included(fields.integer("index"), fields.base64("entry"), tuple(_digest(item) for item in path))
    fields.done()
    return found


def _proven(value: object) -> Proven:
    fields = Fields(value, "record")
    found = Proven(fields.base64("record"), _proof(fields))
    fields.done()
    return found


def _proof(fields: Fields) -> bytes:
    value = fields.value("proof")
    if not isinstance(value, str):
        raise Malformed("a proof is not a string")
    return unb64(value)


def _digest(value: object) -> bytes:
    if not isinstance(value, str):
        raise Malformed("a path holds something other than strings")
    return unb64(value, length=32)
