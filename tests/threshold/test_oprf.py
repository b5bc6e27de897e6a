"""The oblivious function byte for byte, by one server and by many, and everything that is not quite it."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.ed25519 import ORDER
from quotary.errors import Malformed, Rejected
from quotary.threshold import ristretto
from quotary.threshold.oprf import (
    GENERATOR,
    Proof,
    blind,
    evaluate,
    finalize,
    hash_to_group,
    prove,
    random_scalar,
    verify,
)
from quotary.threshold.ristretto import base_multiply, multiply, scalar
from quotary.threshold.sharing import combine_at_zero, commit, public_share, share_of
from tests.fakes.ceremony import Stream

FILE = Path(__file__).parents[1] / "vectors" / "threshold" / "rfc9497-voprf-ristretto255.json"
RFC = json.loads(FILE.read_text())
KEY, PUBLIC = bytes.fromhex(RFC["skSm"]), bytes.fromhex(RFC["pkSm"])
VECTORS = [{name: bytes.fromhex(value) for name, value in item.items()} for item in RFC["vectors"]]
BLINDED, VALUE = VECTORS[0]["BlindedElement"], VECTORS[0]["EvaluationElement"]
PROOF = Proof.parse(VECTORS[0]["proof"])


@pytest.mark.parametrize("vector", VECTORS)
def test_the_vectors_of_the_specification_are_made_byte_for_byte(vector):
    blinded = blind(vector["Input"], vector["Blind"])
    assert blinded == vector["BlindedElement"]
    # The nonce of the proof is a scalar already, and 64 bytes that reduce to it are itself and zeros.
    value, proof = evaluate(KEY, PUBLIC, blinded, vector["r"] + bytes(32))
    assert (value, proof.encode()) == (vector["EvaluationElement"], vector["proof"])
    verify(Proof.parse(vector["proof"]), GENERATOR, PUBLIC, blinded, value, "answer")
    assert finalize(vector["Input"], vector["Blind"], value) == vector["Output"]


@pytest.mark.parametrize("vector", VECTORS)
def test_any_three_of_five_shares_of_the_specifications_key_give_its_output(vector):
    random = Stream("shares")
    coefficients = [KEY, random_scalar(random(64)), random_scalar(random(64))]
    commitments = commit(coefficients)
    answers = {}
    for number in range(1, 6):
        share = share_of(coefficients, number)
        public = public_share(commitments, number)
        answers[number], proof = evaluate(share, public, vector["BlindedElement"], random(64))
        verify(proof, GENERATOR, public, vector["BlindedElement"], answers[number], "answer")
    for chosen in combinations(answers, 3):
        value = combine_at_zero({number: answers[number] for number in chosen})
        assert finalize(vector["Input"], vector["Blind"], value) == vector["Output"]
    for chosen in combinations(answers, 2):
        assert combine_at_zero({number: answers[number] for number in chosen}) != vector["EvaluationElement"]


@pytest.mark.parametrize("part", range(6))
def test_a_proof_about_anything_else_is_refused(part):
    said = [PROOF, GENERATOR, PUBLIC, BLINDED, VALUE]
    if part == 5:
        said[0] = Proof(PROOF.challenge, ristretto.scalar_add(PROOF.response, scalar(1)))
    elif part == 0:
        said[0] = Proof(ristretto.scalar_add(PROOF.challenge, scalar(1)), PROOF.response)
    else:
        said[part] = base_multiply(scalar(77))
    with pytest.raises(Rejected, match="answer: found a proof that does not hold"):
        verify(*said, "answer")


@pytest.mark.parametrize(
    ("key", "other"), [(bytes(32), GENERATOR), (KEY, ristretto.IDENTITY)], ids=["key zero", "nothing asked"]
)
def test_a_proof_about_nothing_is_refused(key, other):
    # Every equation holds, and nothing was computed.
    public, value = multiply(key, GENERATOR), multiply(key, other)
    proof = prove(key, GENERATOR, public, other, value, bytes([1]) * 64)
    with pytest.raises(Rejected):
        verify(proof, GENERATOR, public, other, value, "answer")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(63),
        bytes(65),
        ORDER.to_bytes(32, "little") + KEY,
        KEY + ORDER.to_bytes(32, "little"),
        bytes(64),
    ],
)
def test_a_proof_that_is_not_two_reduced_scalars_is_malformed(data):
    with pytest.raises(Malformed):
        Proof.parse(data)


@pytest.mark.parametrize("number", [0, 1, 2, 99])
def test_an_element_has_one_encoding_though_the_library_takes_two(number):
    element = base_multiply(scalar(number))
    second = element[:31] + bytes([element[31] | 0x80])
    with pytest.raises(Malformed):
        ristretto.check_element(second, "element")
    with pytest.raises(Malformed):
        ristretto.add(PUBLIC, second)
    with pytest.raises(Malformed):
        multiply(KEY, second)


@given(st.binary(max_size=40))
def test_what_is_no_element_is_neither_taken_nor_computed_with(data):
    negative = bytes([(data or b"\0")[0] | 1]) + (data + bytes(32))[1:32]
    for wrong in (negative, b"\xff" * 32, ristretto.IDENTITY, data if len(data) != 32 else data + b"\0"):
        with pytest.raises(Malformed):
            ristretto.check_element(wrong, "element")
    with pytest.raises(Malformed):
        ristretto.add(PUBLIC, negative)
    with pytest.raises(Malformed):
        multiply(KEY, negative)


def test_the_identity_and_zero_are_computed_with_though_the_library_does_not():
    assert multiply(bytes(32), PUBLIC) == multiply(KEY, ristretto.IDENTITY) == ristretto.IDENTITY
    assert base_multiply(bytes(32)) == ristretto.IDENTITY
    assert ristretto.add(PUBLIC, ristretto.IDENTITY) == PUBLIC
    assert ristretto.combine([KEY, scalar(1)], [GENERATOR, PUBLIC]) == multiply(scalar(2), PUBLIC)


def test_an_input_longer_than_its_length_field_is_malformed():
    hash_to_group(bytes(65_535))
    with pytest.raises(Malformed, match="65536 bytes"):
        hash_to_group(bytes(65_536))


def test_a_blinded_element_says_nothing_of_its_input():
    assert blind(b"one", KEY) != blind(b"one", scalar(5)) != blind(b"two", scalar(5))
    with pytest.raises(Malformed, match="blinded element"):
        evaluate(KEY, PUBLIC, ristretto.IDENTITY, bytes(64))


@pytest.mark.parametrize("data", [b"", b"\1" * 31, b"\1" * 33, bytes(32), b"\xff" * 32])
def test_only_reduced_scalars_of_32_bytes_are_scalars(data):
    with pytest.raises(Malformed, match="share is not a scalar"):
        ristretto.check_scalar(data, "share")


def test_a_scalar_of_zeros_is_not_drawn():
    with pytest.raises(Malformed, match="random scalar"):
        random_scalar(bytes(64))


def test_a_secret_that_can_be_wiped_computes_the_same_and_is_gone_afterwards():
    key = bytearray(KEY)
    assert base_multiply(key) == PUBLIC
    ristretto.wipe(key)
    assert key == bytearray(32)
    ristretto.wipe(bytearray())
