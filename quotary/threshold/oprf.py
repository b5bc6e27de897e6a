"""The verifiable oblivious function of RFC 9497: VOPRF, ciphersuite ristretto255-SHA512, one input at a time.

A client blinds an input, a server multiplies it by its key and proves that it used the key it is known by,
the client takes its blind away and hashes. Names in comments are the RFC's. The server may be many, each with
a
share of the key: ``quotary.threshold.sharing`` combines what they answer.
"""

import hashlib
from dataclasses import dataclass

from quotary.errors import Malformed, Rejected
from quotary.threshold.ristretto import (
    IDENTITY,
    SCALAR_LENGTH,
    WIDE_LENGTH,
    Bytes,
    add,
    base_multiply,
    check_element,
    check_scalar,
    element_from_wide,
    multiply,
    scalar_from_wide,
    scalar_invert,
    scalar_mul,
    scalar_sub,
)

OUTPUT_LENGTH = 64
PROOF_LENGTH = 2 * SCALAR_LENGTH
MAX_INPUT = (1 << 16) - 1

CONTEXT = b"OPRFV1-\x01-ristretto255-SHA512"
_BLOCK = 128
GENERATOR = base_multiply((1).to_bytes(32, "little"))


@dataclass(frozen=True, slots=True)
class Proof:
    """That two elements are the same multiple of two others (DLEQ): a challenge and a response."""

    challenge: bytes
    response: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Proof":
        """Read 64 bytes, as RFC 9497 writes them."""
        for part in (data[:32], data[32:]):
            check_scalar(part, "part of a proof")
        return cls(data[:32], data[32:])

    def encode(self) -> bytes:
        return self.challenge + self.response


def hash_to_group(data: bytes) -> bytes:
    """Map an input to an element (section 4.1)."""
    if len(data) > MAX_INPUT:
        raise Malformed(f"input has {len(data)} bytes, at most {MAX_INPUT} are allowed")
    return check_element(element_from_wide(_expand(data, b"HashToGroup-" + CONTEXT)), "the input's hash")


def hash_to_scalar(data: bytes, context: bytes = b"HashToScalar-" + CONTEXT) -> bytes:
    """Map bytes to a scalar (section 4.1); ``context`` separates what is hashed for other ends."""
    return scalar_from_wide(_expand(data, context))


def random_scalar(wide: bytes) -> bytes:
    """Make a scalar of 64 random bytes; zero, which nobody will ever draw, is ``Malformed``."""
    found = scalar_from_wide(wide)
    check_scalar(found, "random scalar")
    return found


def blind(data: bytes, factor: bytes) -> bytes:
    """Hide an input from who evaluates it (Blind, section 3.3.2)."""
    return multiply(factor, hash_to_group(data))


def evaluate(key: Bytes, public: bytes, blinded: bytes, wide: bytes) -> tuple[bytes, Proof]:
    """Multiply an element by the key and prove it (BlindEvaluate). wide: 64 random bytes for the proof."""
    value = multiply(key, check_element(blinded, "blinded element"))
    return value, prove(key, GENERATOR, public, blinded, value, wide)


def finalize(data: bytes, factor: bytes, value: bytes) -> bytes:
    """Take the blind away and hash (Finalize): 64 bytes. Proofs were checked before."""
    clear = multiply(scalar_invert(factor), value)
    return hashlib.sha512(_sized(data) + _sized(clear) + b"Finalize").digest()


def prove(key: Bytes, base: bytes, public: bytes, other: bytes, value: bytes, wide: bytes) -> Proof:
    """Prove that public = key * base and value = key * other (GenerateProof, section 2.2.1)."""
    composite = _composite(public, other, value)
    m, z = multiply(composite, other), multiply(composite, value)
    nonce = random_scalar(wide)
    challenge = _challenge(public, m, z, multiply(nonce, base), multiply(nonce, m))
    return Proof(challenge, scalar_sub(nonce, scalar_mul(challenge, key)))


def verify(proof: Proof, base: bytes, public: bytes, other: bytes, value: bytes, check: str) -> None:
    """Require that public and value are the same multiple of base and other (VerifyProof, section 2.2.2)."""
    composite = _composite(public, other, value)
    m, z = multiply(composite, other), multiply(composite, value)
    t2 = add(multiply(proof.response, base), multiply(proof.challenge, public))
    t3 = add(multiply(proof.response, m), multiply(proof.challenge, z))
    if IDENTITY in (public, other, value) or _challenge(public, m, z, t2, t3) != proof.challenge:
        raise Rejected(check, "a proof that does not hold", f"one under the key {public.hex()}")


def _composite(public: bytes, other: bytes, value: bytes) -> bytes:
    """The weight of the one pair (ComputeComposites, section 2.2.1)."""
    seed = hashlib.sha512(_sized(public) + _sized(b"Seed-" + CONTEXT)).digest()
    return hash_to_scalar(_sized(seed) + bytes(2) + _sized(other) + _sized(value) + b"Composite")


def _challenge(*elements: bytes) -> bytes:
    return hash_to_scalar(b"".join(map(_sized, elements)) + b"Challenge")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _expand(data: bytes, context: bytes) -> bytes:
    """Give 64 uniform bytes (expand_message_xmd of RFC 9380 section 5.3.1, SHA-512, one block)."""
    suffix = context + bytes([len(context)])
    first = hashlib.sha512(bytes(_BLOCK) + data + WIDE_LENGTH.to_bytes(2, "big") + b"\0" + suffix).digest()
    return hashlib.sha512(first + b"\1" + suffix).digest()
