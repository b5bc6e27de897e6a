"""Telling what a file is from its first look; whatever it claims to be, its own parser decides."""

import json
from enum import Enum

from quotary.errors import Malformed
from quotary.tlog.proof import HEADER


class Kind(Enum):
    """What ``quotary verify`` can be given."""

    EVIDENCE = "evidence file"
    DOCUMENT = "attestation document"
    BUNDLE = "bundle"
    PROOF = "proof"
    ENTRY = "signed statement"
    RECEIPT = "receipt"
    QUOTE = "quote"


# The members that only this kind has.
_MEMBERS = (
    ({"type", "document", "judged_at"}, Kind.EVIDENCE),
    ({"binding", "keyset", "cpu"}, Kind.DOCUMENT),
    ({"checkpoint", "state"}, Kind.BUNDLE),
    ({"payload", "payloadType", "signatures"}, Kind.ENTRY),
    ({"receipt_id", "sigs"}, Kind.RECEIPT),
)


def kind_of(data: bytes) -> Kind:
    """Name the kind of a file, or raise ``Malformed``."""
    if data.startswith(HEADER.encode("ascii")):
        return Kind.PROOF
    if data[:2] in (b"\x03\x00", b"\x04\x00", b"\x05\x00"):
        return Kind.QUOTE
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("the file is of no kind that can be verified") from error
    for members, kind in _MEMBERS:
        if isinstance(value, dict) and members <= value.keys():
            return kind
    raise Malformed("the file is JSON of no kind that can be verified")
