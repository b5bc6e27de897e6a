"""One key in n shares of which t give it: Shamir's polynomials with Feldman's commitments, over ristretto255.

A dealer draws a polynomial of degree t - 1, publishes its coefficients times the generator, and gives node j
its value at j: a share that anybody can hold against the commitments. Weighted sums of dealings are dealings
again, so the same arithmetic makes a key that nobody ever held (weights 1: Pedersen's key generation, with
the proof of knowledge that Komlo and Goldberg add) and new shares of an old key (weights of Lagrange over old
shares). What t nodes compute with their shares is combined by the same weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

from quotary.ed25519 import ORDER
from quotary.errors import Rejected
from quotary.threshold.oprf import Proof, hash_to_scalar, random_scalar
from quotary.threshold.ristretto import (
    ZERO,
    Bytes,
    add,
    base_multiply,
    combine,
    multiply,
    scalar,
    scalar_add,
    scalar_mul,
    scalar_sub,
    sum_of,
)

_KNOWLEDGE = b"quotary-kms-knowledge/v1\n"

Commitments = tuple[bytes, ...]
"""A polynomial's coefficients times the generator, the constant one first."""


def commit(coefficients: Sequence[Bytes]) -> Commitments:
    """Give the public side of a polynomial, constant first."""
    return tuple(map(base_multiply, coefficients))


def share_of(coefficients: Sequence[Bytes], number: int) -> bytes:
    """Give a polynomial's value at a node's number (from 1): that node's share of the dealing."""
    assert number > 0
    at = scalar(number)
    return reduce(lambda sum_, next_: scalar_add(scalar_mul(sum_, at), next_), reversed(coefficients), ZERO)


def public_share(commitments: Commitments, number: int) -> bytes:
    """Give the share of a node times the generator, which everybody can compute."""
    at = scalar(number)
    return reduce(lambda sum_, next_: add(multiply(at, sum_), next_), reversed(commitments), bytes(32))


def check_share(share: Bytes, number: int, commitments: Commitments, dealer: int) -> None:
    """Require that a share is the dealer's polynomial at this number, or raise ``Rejected``."""
    if base_multiply(share) != public_share(commitments, number):
        found = f"one of node {dealer} for node {number} that is not on its polynomial"
        raise Rejected("share", found, "one that fits the dealer's commitments")


def weights(numbers: Iterable[int]) -> Mapping[int, bytes]:
    """Give the weights by which shares of these nodes, all different, add up to the key (Lagrange at 0)."""
    points = sorted(set(numbers))
    found = {}
    for own in points:
        others = [other for other in points if other != own]
        top = reduce(lambda product, other: product * other % ORDER, others, 1)
        below = reduce(lambda product, other: product * (other - own) % ORDER, others, 1)
        found[own] = scalar(top * pow(below, -1, ORDER))
    return found


def combine_at_zero(answers: Mapping[int, bytes]) -> bytes:
    """Combine what nodes multiplied by their shares into the product with the key that none of them has."""
    factors = weights(answers)
    return combine([factors[number] for number in sorted(answers)], [answers[n] for n in sorted(answers)])


def sum_shares(shares: Mapping[int, Bytes], factors: Mapping[int, bytes]) -> bytearray:
    """Add up what dealers gave one node, each by its weight."""
    products = (scalar_mul(factors[dealer], share) for dealer, share in shares.items())
    return bytearray(reduce(scalar_add, products, ZERO))


def sum_commitments(dealings: Mapping[int, Commitments], factors: Mapping[int, bytes]) -> Commitments:
    """Add up dealers' polynomials, each by its weight, in public."""
    lists = [[multiply(factors[dealer], item) for item in found] for dealer, found in dealings.items()]
    return tuple(sum_of(column) for column in zip(*lists, strict=True))


def prove_knowledge(secret: Bytes, context: bytes, wide: bytes) -> Proof:
    """Prove that one knows a secret, here and for nothing else (Schnorr). wide: 64 random bytes."""
    nonce = random_scalar(wide)
    challenge = _challenge(base_multiply(secret), base_multiply(nonce), context)
    return Proof(challenge, scalar_sub(nonce, scalar_mul(challenge, secret)))


def verify_knowledge(proof: Proof, public: bytes, context: bytes, dealer: int) -> None:
    """Require that who shows ``public`` knows its logarithm, or a dealer could cancel the others'."""
    nonce = add(base_multiply(proof.response), multiply(proof.challenge, public))
    if _challenge(public, nonce, context) != proof.challenge:
        found = f"node {dealer} without the secret that it commits to"
        raise Rejected("dealing", found, "proof of its knowledge")


def _challenge(public: bytes, nonce: bytes, context: bytes) -> bytes:
    return hash_to_scalar(public + nonce + context, _KNOWLEDGE)
