"""Evidence with everything that its verdict depends on, in one file: ``docs/formats/kept-evidence.md``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields, b64, canonical, hexbytes, parse_canonical, parse_time, time_text, unb64
from quotary.errors import Malformed

MAX_KEPT = 4 << 20
MAX_EVIDENCE = 1 << 20
MAX_MEMBERS = 64
NONCE_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Kept:
    """Evidence, collateral, nonces and time: whoever has them gets the same verdict again, offline.

    judged_at: the time that certificates, lists and documents are held against; whole seconds are kept
    nonces:    32 bytes for each NVIDIA device in order, of whoever asked; empty leaves freshness unchecked
    """

    evidence: bytes
    collateral: Mapping[str, str]
    judged_at: datetime
    nonces: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Kept":
        """Read what ``bytes`` made, or raise ``Malformed``; the evidence is not looked at."""
        fields = Fields(parse_canonical(data, MAX_KEPT), "kept evidence")
        fields.integer("v", 1, 1)
        members = fields.mapping("collateral", MAX_MEMBERS)
        found = cls(
            fields.base64("evidence", limit=2 * MAX_EVIDENCE),
            {name: _text(name, value) for name, value in members.items()},
            parse_time(fields.text("judged_at", 20)),
            tuple(map(_nonce, fields.optional("nonces", lambda name: fields.items(name, MAX_MEMBERS)) or ())),
        )
        fields.done()
        return found

    def __bytes__(self) -> bytes:
        document = {
            "v": 1,
            "evidence": b64(self.evidence),
            # In base64 because manifests hold line ends and tabs.
            "collateral": {name: b64(text.encode()) for name, text in self.collateral.items()},
            "judged_at": time_text(self.judged_at.replace(microsecond=0)),
        }
        nonces = {"nonces": [nonce.hex() for nonce in self.nonces]} if self.nonces else {}
        return canonical(document | nonces)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Malformed(f"collateral {name} is not a string")
    try:
        return unb64(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"collateral {name} is not text") from error


def _nonce(value: object) -> bytes:
    if not isinstance(value, str):
        raise Malformed("kept evidence.nonces holds something other than hex")
    return hexbytes(value, NONCE_LENGTH)
