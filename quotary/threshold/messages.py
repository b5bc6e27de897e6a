"""What nodes tell each other in a ceremony, each signed: dealings, checks of them, and answers to complaints.

Whoever carries the messages can lose them and nothing else: shares are sealed to their receivers, and every
message names the ceremony, its maker and, for a check, the very dealings that it saw.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary import ed25519
from quotary.canonical import Fields, b64, canonical, hexbytes, parse_canonical, unb64
from quotary.errors import InvalidSignature, Malformed, Rejected
from quotary.threshold.group import MAX_NODES, Ceremony
from quotary.threshold.oprf import PROOF_LENGTH, Proof
from quotary.threshold.ristretto import check_element
from quotary.threshold.sharing import Commitments

MAX_MESSAGE = 1 << 16
_NUMBERS = frozenset(str(number) for number in range(1, MAX_NODES + 1))
_SIGNED = b"quotary-kms-message/v1\n"


@dataclass(frozen=True, slots=True)
class Deal:
    """One node's dealing: its polynomial in public, and a sealed share for every node of the group."""

    dealer: int
    commitments: Commitments
    knowledge: Proof
    shares: Mapping[int, bytes]

    def document(self) -> dict[str, object]:
        return {
            "commitments": [item.hex() for item in self.commitments],
            "knowledge": self.knowledge.encode().hex(),
            "shares": {str(number): b64(sealed) for number, sealed in self.shares.items()},
        }

    @classmethod
    def read(cls, maker: int, fields: Fields) -> "Deal":
        commitments = tuple(
            check_element(hexbytes(_text(item), 32), "commitment")
            for item in fields.items("commitments", MAX_NODES, low=1)
        )
        return cls(
            maker,
            commitments,
            Proof.parse(fields.hexbytes("knowledge", PROOF_LENGTH)),
            _numbered(fields, "shares", unb64),
        )


@dataclass(frozen=True, slots=True)
class CheckedDeals:
    """What one node says of the dealings: which it saw (SHA-256 of each), and whose share does not fit."""

    node: int
    seen: Mapping[int, bytes]
    complaints: tuple[int, ...]

    def document(self) -> dict[str, object]:
        seen = {str(number): digest.hex() for number, digest in self.seen.items()}
        return {"seen": seen, "complaints": list(self.complaints)}

    @classmethod
    def read(cls, maker: int, fields: Fields) -> "CheckedDeals":
        seen = _numbered(fields, "seen", lambda text: hexbytes(text, 32))
        found = fields.items("complaints", MAX_NODES)
        complaints = tuple(item for item in found if isinstance(item, int) and item in seen)
        if list(found) != sorted(set(complaints)):
            raise Malformed("complaints are not about dealings that were seen, in ascending order")
        return cls(maker, seen, complaints)


@dataclass(frozen=True, slots=True)
class Answer:
    """A dealer's answer to those who complained: their shares, in clear."""

    dealer: int
    shares: Mapping[int, bytes]

    def document(self) -> dict[str, object]:
        return {"shares": {str(number): share.hex() for number, share in self.shares.items()}}

    @classmethod
    def read(cls, maker: int, fields: Fields) -> "Answer":
        return cls(maker, _numbered(fields, "shares", lambda text: hexbytes(text, 32)))


Body = Deal | CheckedDeals | Answer
_KINDS: Mapping[type[Body], str] = {Deal: "deal", CheckedDeals: "check", Answer: "answer"}


@dataclass(frozen=True, slots=True)
class Message:
    """A body with its exact bytes; ``open_message`` has verified who signed them."""

    body: Body
    data: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def sign_message(ceremony: Ceremony, number: int, body: Body, key: Ed25519PrivateKey) -> Message:
    """Write a node's message and sign it."""
    document = {"v": 1, "ceremony": ceremony.digest.hex(), "kind": _KINDS[type(body)], "node": number}
    document |= body.document()
    signature = key.sign(_SIGNED + canonical(document))
    return Message(body, canonical({**document, "signature": b64(signature)}))


def open_message(ceremony: Ceremony, data: bytes) -> Message:
    """Read a message of this ceremony and verify who made it, or raise ``Malformed`` or ``Rejected``."""
    value = parse_canonical(data, MAX_MESSAGE)
    fields = Fields(value, "message")
    fields.integer("v", 1, 1)
    if fields.hexbytes("ceremony", 32) != ceremony.digest:
        raise Rejected("ceremony", "a message of another ceremony", f"one of {ceremony.digest.hex()}")
    node = ceremony.group.node(fields.integer("node", 1, MAX_NODES))
    kind = fields.choice("kind", *_KINDS.values())
    (body_type,) = (found for found, name in _KINDS.items() if name == kind)
    body = body_type.read(node.number, fields)
    signature = fields.base64("signature", length=64)
    fields.done()
    assert isinstance(value, dict)
    signed = canonical({name: item for name, item in value.items() if name != "signature"})
    try:
        ed25519.verify(node.key, signature, _SIGNED + signed)
    except InvalidSignature:
        raise Rejected("message", f"a {kind} that node {node.number} did not sign", "its signature") from None
    return Message(body, data)


def _numbered(fields: Fields, name: str, read: Callable[[str], bytes]) -> Mapping[int, bytes]:
    found = {}
    for text, value in fields.mapping(name, MAX_NODES).items():
        if text not in _NUMBERS:
            raise Malformed(f"message.{name} names something other than nodes")
        found[int(text)] = read(_text(value))
    return dict(sorted(found.items()))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Malformed("a message holds something other than strings")
    return value
