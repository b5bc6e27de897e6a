"""A ceremony's steps and a node's status as they travel (docs/formats/kms.md)."""

from collections.abc import Sequence
from dataclasses import dataclass

from private.kms.ceremonies import Ceremonies, Round
from quotary.canonical import Fields, b64, canonical, parse_canonical, unb64
from quotary.errors import Malformed
from quotary.threshold.group import MAX_EPOCH, MAX_NODES

STEPS = ("deal", "check", "answer", "finish", "activate")
MAX_STEP = 4 << 20
MAX_STATUS = 1 << 16


@dataclass(frozen=True, slots=True)
class Step:
    """What a node is told with a step. ceremony: its digest; logged: for ``activate``, entry and proof."""

    ceremony: bytes
    shown: Round
    logged: tuple[bytes, bytes] | None = None

    def encode(self) -> bytes:
        document: dict[str, object] = {
            "v": 1,
            "ceremony": self.ceremony.hex(),
            "deals": [b64(item) for item in self.shown.deals],
            "checks": [b64(item) for item in self.shown.checks],
            "answers": [b64(item) for item in self.shown.answers],
        }
        for name, pair in (("before", self.shown.before), ("logged", self.logged)):
            if pair is not None:
                document[name] = {"entry": b64(pair[0]), "proof": b64(pair[1])}
        return canonical(document)

    @classmethod
    def parse(cls, data: bytes) -> "Step":
        fields = Fields(parse_canonical(data, MAX_STEP), "step")
        fields.integer("v", 1, 1)
        lists = [_messages(fields.items(name, MAX_NODES)) for name in ("deals", "checks", "answers")]
        found = cls(
            fields.hexbytes("ceremony", 32),
            Round(fields.optional("before", lambda name: _pair(fields.fields(name))), *lists),
            fields.optional("logged", lambda name: _pair(fields.fields(name))),
        )
        fields.done()
        return found

    def take(self, name: str, node: Ceremonies) -> bytes:
        """Have a node take this step; gives what it answers."""
        if name == "activate":
            if self.logged is None:
                raise Malformed("step.logged is missing")
            return canonical({"v": 1, "active": node.activate(self.ceremony, *self.logged).statement_id})
        act = {"deal": node.deal, "check": node.check, "answer": node.answer, "finish": node.finish}[name]
        return canonical({"v": 1, "said": b64(act(self.ceremony, self.shown))})


def said(data: bytes) -> bytes:
    """Read what a node answers to a step."""
    fields = Fields(parse_canonical(data, MAX_STEP), "answer")
    fields.integer("v", 1, 1)
    found = fields.base64("said", limit=MAX_STEP)
    fields.done()
    return found


@dataclass(frozen=True, slots=True)
class Shares:
    """Of which key a node has a share, and of which set."""

    epoch: int
    generation: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a node says of itself: a hint. key: its Ed25519 key, 32 bytes; ledger: its head, 32 bytes."""

    key: bytes
    shares: Sequence[Shares]
    released: int
    ledger: bytes

    def encode(self) -> bytes:
        shares = [{"epoch": item.epoch, "generation": item.generation} for item in self.shares]
        ledger = {"size": self.released, "sha256": self.ledger.hex()}
        return canonical({"v": 1, "key": self.key.hex(), "shares": shares, "ledger": ledger})

    @classmethod
    def parse(cls, data: bytes) -> "Status":
        fields = Fields(parse_canonical(data, MAX_STATUS), "status")
        fields.integer("v", 1, 1)
        ledger, shares = fields.fields("ledger"), []
        for value in fields.items("shares", 1024):
            item = Fields(value, "share")
            shares.append(
                Shares(item.integer("epoch", 1, MAX_EPOCH), item.integer("generation", 0, MAX_EPOCH))
            )
            item.done()
        found = cls(
            fields.hexbytes("key", 32), tuple(shares), ledger.integer("size"), ledger.hexbytes("sha256", 32)
        )
        ledger.done()
        fields.done()
        return found


def _messages(items: Sequence[object]) -> tuple[bytes, ...]:
    if not all(isinstance(item, str) for item in items):
        raise Malformed("a step holds a message that is not a string")
    return tuple(unb64(str(item)) for item in items)


def _pair(fields: Fields) -> tuple[bytes, bytes]:
    found = fields.base64("entry", limit=MAX_STEP), fields.base64("proof", limit=MAX_STEP)
    fields.done()
    return found
