"""One enclave's question to one node for one key, and the node's answer (docs/formats/kms.md).

The question's digest, with the node's challenge, is the nonce that the hardware signs: nobody between can
change a word of it, send it twice or send it to another node. The answer is sealed to the one-time key of the
same evidence.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.errors import Malformed
from quotary.threshold.group import MAX_EPOCH, MAX_NODES
from quotary.threshold.oprf import (
    GENERATOR,
    PROOF_LENGTH,
    Proof,
    blind,
    finalize,
    hash_to_group,
    prove,
    random_scalar,
    verify,
)
from quotary.threshold.ristretto import WIDE_LENGTH, base_multiply, check_element

CAPABILITY = "key-release"
"""What a keyset says that is made for one question; a serving enclave's keyset does not."""

CHALLENGES, RELEASES = "/kms/v1/challenges", "/kms/v1/releases"
MAX_QUESTION = 6 << 20
MAX_LABEL = 64
CHALLENGE_LENGTH = KEY_LENGTH = 32

_INPUT = "quotary-kms-input/v1"
_ASKED = b"quotary-kms-question/v1\n"
_SEALED = b"quotary-kms-answer/v1\n"
_KEY = b"quotary-kms-key/v1\n"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every node alike.

    label:     what the key is for, a name of at most 64; blinded: the hashed input times the blind
    witness:   the generator times the blind; knowledge: that both are, so that ``blinded`` hides this label
    """

    epoch: int
    generation: int
    label: str
    blinded: bytes
    witness: bytes
    knowledge: Proof

    def document(self) -> dict[str, object]:
        return {
            "epoch": self.epoch,
            "generation": self.generation,
            "label": self.label,
            "blinded": self.blinded.hex(),
            "witness": self.witness.hex(),
            "knowledge": self.knowledge.encode().hex(),
        }

    @classmethod
    def read(cls, fields: Fields) -> "Question":
        found = cls(
            fields.integer("epoch", 1, MAX_EPOCH),
            fields.integer("generation", 0, MAX_EPOCH),
            fields.name("label", MAX_LABEL),
            check_element(fields.hexbytes("blinded", 32), "blinded input"),
            check_element(fields.hexbytes("witness", 32), "witness"),
            Proof.parse(fields.hexbytes("knowledge", PROOF_LENGTH)),
        )
        fields.done()
        return found

    def nonce(self, challenge: bytes) -> bytes:
        """Give the nonce (32 bytes) under which evidence asks this of the node that gave the challenge."""
        return hashlib.sha256(_ASKED + challenge + canonical(self.document())).digest()

    def check_input(self, service: str) -> None:
        """Require that this label of this service is what is blinded, or raise ``Rejected``."""
        base = hash_to_group(input_of(service, self.label, self.epoch))
        verify(self.knowledge, base, self.blinded, GENERATOR, self.witness, "blinded input")


@dataclass(frozen=True, slots=True)
class Asking:
    """A question with what only the asker knows."""

    question: Question
    data: bytes
    blind: bytes

    def key(self, value: bytes) -> bytes:
        """Make the key (32 bytes) of what t nodes' answers combine to."""
        output = finalize(self.data, self.blind, value)
        return HKDF(hashes.SHA256(), KEY_LENGTH, salt=None, info=_KEY + self.data).derive(output)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it travels to one node. document: canonical bytes of the attestation document."""

    challenge: bytes
    question: Question
    document: bytes

    def encode(self) -> bytes:
        return canonical(
            {
                "v": 1,
                "challenge": self.challenge.hex(),
                "question": self.question.document(),
                "document": b64(self.document),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Asked":
        fields = Fields(parse_canonical(data, MAX_QUESTION), "question")
        fields.integer("v", 1, 1)
        found = cls(
            fields.hexbytes("challenge", CHALLENGE_LENGTH),
            Question.read(fields.fields("question")),
            fields.base64("document", limit=MAX_QUESTION),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class Answered:
    """A node's answer: its number, and the product and its proof, sealed."""

    node: int
    sealed: bytes

    def encode(self) -> bytes:
        return canonical({"v": 1, "node": self.node, "sealed": b64(self.sealed)})

    @classmethod
    def parse(cls, data: bytes) -> "Answered":
        fields = Fields(parse_canonical(data, 8192), "answer")
        fields.integer("v", 1, 1)
        found = cls(fields.integer("node", 1, MAX_NODES), fields.base64("sealed", limit=4096))
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class Partial:
    """What a node computed. value: the blinded input times its share; proof: that it was its share."""

    value: bytes
    proof: Proof

    def encode(self) -> bytes:
        return self.value + self.proof.encode()

    @classmethod
    def parse(cls, data: bytes) -> "Partial":
        if len(data) != 32 + PROOF_LENGTH:
            raise Malformed(f"a node's answer has {len(data)} bytes, {32 + PROOF_LENGTH} are needed")
        return cls(check_element(data[:32], "answer"), Proof.parse(data[32:]))


def ask(service: str, label: str, epoch: int, generation: int, random: Callable[[int], bytes]) -> Asking:
    """Blind an input and prove of what it is the blinding."""
    data = input_of(service, label, epoch)
    factor = random_scalar(random(WIDE_LENGTH))
    blinded, witness = blind(data, factor), base_multiply(factor)
    knowledge = prove(factor, hash_to_group(data), blinded, GENERATOR, witness, random(WIDE_LENGTH))
    return Asking(Question(epoch, generation, label, blinded, witness, knowledge), data, factor)


def input_of(service: str, label: str, epoch: int) -> bytes:
    """Write what a key is a function of."""
    return canonical({"purpose": _INPUT, "service": service, "label": label, "epoch": epoch})


def sealed_for(nonce: bytes, node: int) -> bytes:
    """Give the use for which an answer is sealed: one question of one node."""
    return _SEALED + nonce + bytes([node])
