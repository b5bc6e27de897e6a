"""Who holds a key together, and what they are about to do: documents that operators compare by digest.

A group names its nodes by number, with the keys that sign for them and to which shares are sealed. A ceremony
makes the first shares of an epoch's key (``dkg``), or new shares of it for the same or another group
(``reshare``). Canonical JSON; the page is docs/formats/kms.md.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields, b64, canonical, parse_canonical, time_text
from quotary.ed25519 import check_public_key
from quotary.errors import InvalidSignature, Malformed
from quotary.threshold.box import PUBLIC_LENGTH

MAX_NODES = 16
MAX_DOCUMENT = 1 << 16
MAX_EPOCH = 1 << 32

DKG, RESHARE = "dkg", "reshare"


@dataclass(frozen=True, slots=True)
class Node:
    """One holder of a share. number: from 1; key: Ed25519, 32 bytes; box: X-Wing, 1216 bytes."""

    number: int
    key: bytes
    box: bytes

    def document(self) -> dict[str, object]:
        return {"number": self.number, "key": self.key.hex(), "box": b64(self.box)}

    @classmethod
    def read(cls, value: object) -> "Node":
        fields = Fields(value, "node")
        found = cls(
            fields.integer("number", 1, MAX_NODES),
            fields.hexbytes("key", 32),
            fields.base64("box", length=PUBLIC_LENGTH),
        )
        fields.done()
        try:
            check_public_key(found.key)
        except InvalidSignature as error:
            raise Malformed(f"the key of node {found.number} is degenerate") from error
        return found


@dataclass(frozen=True, slots=True)
class Group:
    """The holders of a key: ``threshold`` of ``nodes`` are needed.

    service, origin: the key service's name, and the log that has its epochs
    nodes: numbered from 1 without a gap, no two with the same key
    """

    service: str
    origin: str
    threshold: int
    nodes: tuple[Node, ...]

    def document(self) -> dict[str, object]:
        return {
            "v": 1,
            "service": self.service,
            "log": self.origin,
            "threshold": self.threshold,
            "nodes": [node.document() for node in self.nodes],
        }

    @classmethod
    def read(cls, value: object) -> "Group":
        fields = Fields(value, "group")
        fields.integer("v", 1, 1)
        nodes = tuple(map(Node.read, fields.items("nodes", MAX_NODES, low=1)))
        found = cls(
            fields.name("service", 100), fields.name("log"), fields.integer("threshold", 1, len(nodes)), nodes
        )
        fields.done()
        if [node.number for node in nodes] != list(range(1, len(nodes) + 1)):
            raise Malformed("a group's nodes are not numbered from 1 without a gap")
        if len({node.key for node in nodes}) < len(nodes) or len({node.box for node in nodes}) < len(nodes):
            raise Malformed("two nodes of a group have the same key")
        return found

    @classmethod
    def parse(cls, data: bytes) -> "Group":
        return cls.read(parse_canonical(data, MAX_DOCUMENT))

    def encode(self) -> bytes:
        return canonical(self.document())

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encode()).digest()

    def node(self, number: int) -> Node:
        """Give a node by its number, or raise ``Malformed``."""
        if not 1 <= number <= len(self.nodes):
            raise Malformed(f"the group has no node {number}, but 1 to {len(self.nodes)}")
        return self.nodes[number - 1]

    def number_of(self, key: bytes) -> int:
        """Give the number of the node with this Ed25519 key, or raise ``Malformed``."""
        for node in self.nodes:
            if node.key == key:
                return node.number
        raise Malformed("the group has no node with this key")


@dataclass(frozen=True, slots=True)
class Ceremony:
    """A proposal: every node's operator approves its digest before the node takes part.

    epoch:      which key, from 1; generation: which shares of it, 0 for the first
    previous:   statement id of the epoch's shares before these, or ``none``
    sequence, issued: of the statement that will say what came of it
    nonce:      32 bytes, so that no two ceremonies are the same
    """

    group: Group
    epoch: int
    generation: int
    previous: str
    sequence: int
    issued: datetime
    nonce: bytes

    @property
    def kind(self) -> str:
        """Say whether it makes a new key (``dkg``) or new shares of one (``reshare``)."""
        return RESHARE if self.generation else DKG

    def encode(self) -> bytes:
        return canonical(
            {
                "v": 1,
                "kind": self.kind,
                "group": self.group.document(),
                "epoch": self.epoch,
                "generation": self.generation,
                "previous": self.previous,
                "sequence": self.sequence,
                "issued": time_text(self.issued),
                "nonce": self.nonce.hex(),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Ceremony":
        fields = Fields(parse_canonical(data, MAX_DOCUMENT), "ceremony")
        fields.integer("v", 1, 1)
        kind = fields.choice("kind", DKG, RESHARE)
        found = cls(
            Group.read(fields.value("group")),
            fields.integer("epoch", 1, MAX_EPOCH),
            fields.integer("generation", 0, MAX_EPOCH),
            fields.text("previous", 71),
            fields.integer("sequence", 1),
            fields.time("issued"),
            fields.hexbytes("nonce", 32),
        )
        fields.done()
        if kind != found.kind or (found.previous == "none") != (kind == DKG):
            raise Malformed("a ceremony makes generation 0 from none, or a later one from the one before")
        return found

    @property
    def digest(self) -> bytes:
        """SHA-256 of its bytes (32 bytes): what operators compare and every message names."""
        return hashlib.sha256(self.encode()).digest()
