"""Blind RSA and Privacy Pass against the RFCs' vectors, and tokens of every wrong kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidSignature, Malformed, Rejected, Unsupported
from quotary.oblivious import blind_rsa
from quotary.oblivious.blind_rsa import Signer
from quotary.oblivious.privacy_pass import (
    TOKEN_LENGTH,
    Challenge,
    Token,
    decode_key,
    encode_key,
    issue,
    request_token,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "oblivious"
ISSUED = [
    {name: bytes.fromhex(value) for name, value in item.items()}
    for item in json.loads((VECTORS / "rfc9578-blind-rsa.json").read_text())
]
PRIVATE = load_pem_private_key(ISSUED[0]["skS"], None)
assert isinstance(PRIVATE, rsa.RSAPrivateKey)
KEY = encode_key(PRIVATE.public_key())
SIGNER = Signer(PRIVATE)
CHALLENGE = Challenge("issuer.example", b"\x07" * 32, ("chat.example.org",))
PENDING = request_token(KEY, CHALLENGE)
TOKEN = PENDING.finish(issue(SIGNER, KEY, PENDING.request))


@pytest.mark.parametrize("vector", ISSUED)
def test_a_token_of_the_specification_is_made_byte_for_byte(vector):
    private = load_pem_private_key(vector["skS"], None)
    key = encode_key(private.public_key())
    challenge = Challenge.parse(vector["token_challenge"])
    assert (key, challenge.encode()) == (vector["pkS"], vector["token_challenge"])
    pending = request_token(
        key,
        challenge,
        nonce=vector["nonce"],
        salt=vector["salt"],
        factor=int.from_bytes(vector["blind"], "big"),
    )
    assert pending.request == vector["token_request"]
    assert issue(Signer(private), key, pending.request) == vector["token_response"]
    token = pending.finish(vector["token_response"])
    assert token.encode() == vector["token"]
    token.verify(key, challenge)
    assert Token.from_header(token.header()) == Token.parse(vector["token"]) == token


def test_the_vector_of_rfc_9474_is_blinded_signed_and_finished_byte_for_byte():
    vector = json.loads((VECTORS / "rfc9474-deterministic.json").read_text())
    numbers = {name: int(vector[name], 16) for name in ("p", "q", "n", "e", "d", "inv")}
    n, p, q, d = (numbers[name] for name in ("n", "p", "q", "d"))
    public = rsa.RSAPublicNumbers(numbers["e"], n)
    private = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()
    message = bytes.fromhex(vector["msg"])
    found = blind_rsa.blind(
        private.public_key(), message, salt=bytes.fromhex(vector["salt"]), factor=pow(numbers["inv"], -1, n)
    )
    assert (found.message.hex(), found.inverse) == (vector["blinded_msg"], numbers["inv"])
    signed = Signer(private).sign(found.message)
    assert signed.hex() == vector["blind_sig"]
    assert blind_rsa.finalize(private.public_key(), message, signed, found.inverse).hex() == vector["sig"]


def test_the_issuer_cannot_tell_which_request_a_token_came_from():
    requests = {request_token(KEY, CHALLENGE, nonce=b"n" * 32).request for _ in range(3)}
    assert len(requests) == 3
    assert not any(TOKEN.nonce in request or TOKEN.challenge_digest in request for request in requests)


def test_a_token_is_good_for_its_challenge_and_its_key_only():
    TOKEN.verify(KEY, CHALLENGE)
    for other in (
        replace(CHALLENGE, context=b"\x08" * 32), replace(CHALLENGE, issuer="other.example"),
        replace(CHALLENGE, origins=()), replace(CHALLENGE, context=b""),
    ):  # fmt: skip
        with pytest.raises(Rejected, match="token challenge"):
            TOKEN.verify(KEY, other)
    other_key = load_pem_private_key(ISSUED[1]["skS"], None).public_key()
    if encode_key(other_key) != KEY:
        with pytest.raises(Rejected, match="token key"):
            TOKEN.verify(encode_key(other_key), CHALLENGE)


@pytest.mark.parametrize("part", ["nonce", "authenticator"])
def test_a_changed_token_does_not_verify(part):
    value = getattr(TOKEN, part)
    for at in (0, 17, len(value) - 1):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises(InvalidSignature):
            replace(TOKEN, **{part: changed}).verify(KEY, CHALLENGE)


def test_an_issuer_that_signs_something_else_is_caught_by_the_client():
    pending, other = request_token(KEY, CHALLENGE), request_token(KEY, CHALLENGE)
    with pytest.raises(Rejected, match="blind signature"):
        pending.finish(issue(SIGNER, KEY, other.request))
    for answer in (b"", bytes(255), b"\xff" * 256):
        with pytest.raises(Malformed, match="blind signature"):
            pending.finish(answer)


def test_an_issuer_answers_for_its_key_only():
    changed = PENDING.request[:2] + bytes([PENDING.request[2] ^ 1]) + PENDING.request[3:]
    with pytest.raises(Rejected, match="token key"):
        issue(SIGNER, KEY, changed)
    with pytest.raises(Unsupported, match="type 1"):
        issue(SIGNER, KEY, b"\0\x01" + PENDING.request[2:])
    with pytest.raises(Malformed, match="258 bytes"):
        issue(SIGNER, KEY, PENDING.request[:-1])
    with pytest.raises(Malformed, match="below the modulus"):
        issue(SIGNER, KEY, PENDING.request[:3] + b"\xff" * 256)


def test_a_faulty_private_operation_gives_nothing_away():
    numbers = PRIVATE.private_numbers()
    broken = Signer(PRIVATE)
    broken._key = (numbers.p, numbers.q, numbers.dmp1 + 2, numbers.dmq1, numbers.iqmp)
    with pytest.raises(ArithmeticError):
        issue(broken, KEY, PENDING.request)


def test_a_key_of_another_shape_is_malformed():
    assert decode_key(KEY).public_numbers() == PRIVATE.public_key().public_numbers()
    modulus = len(KEY) - 5 - 256
    for at in (*range(modulus), *range(len(KEY) - 5, len(KEY))):
        changed = bytearray(KEY)
        changed[at] ^= 1
        with pytest.raises(Malformed):
            decode_key(bytes(changed))
    short, even = KEY[:modulus] + b"\x7f" + KEY[modulus + 1 :], KEY[:-6] + b"\0" + KEY[-5:]
    for data in (b"", KEY[:-1], KEY + b"\0", short, even):
        with pytest.raises(Malformed):
            decode_key(data)
    with pytest.raises(Malformed, match="2048"):
        encode_key(rsa.generate_private_key(65537, 3072).public_key())


@pytest.mark.parametrize(
    "value",
    ["", "Bearer abc", "PrivateToken", "PrivateToken token=", 'PrivateToken token="?"', "PrivateToken token=A",
     "PrivateToken token=AAAA", TOKEN.header() + ", x=1"],
)  # fmt: skip
def test_a_header_without_a_token_is_malformed(value):
    with pytest.raises(Malformed):
        Token.from_header(value)


def test_a_token_of_another_type_is_unsupported():
    with pytest.raises(Unsupported, match="type 1"):
        Token.parse(b"\0\x01" + TOKEN.encode()[2:])


def test_a_challenge_without_origins_and_context_is_read_again():
    plain = Challenge("issuer.example", b"", ())
    assert Challenge.parse(plain.encode()) == plain
    several = Challenge("issuer.example", b"", ("a.example", "b.example"))
    assert Challenge.parse(several.encode()) == several


@pytest.mark.parametrize(
    "change",
    [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:1], lambda d: b"\0\x02\0\0" + d[18:],
     lambda d: d.replace(b"\x20" + b"\x07" * 32, b"\x1f" + b"\x07" * 31), lambda d: d.replace(b"chat", b"ch\xff\xff")],
)  # fmt: skip
def test_what_is_no_challenge_is_malformed(change):
    with pytest.raises(Malformed):
        Challenge.parse(change(CHALLENGE.encode()))


@given(st.binary(max_size=400))
def test_bytes_are_a_token_a_challenge_or_an_error_of_ours(data):
    for parse in (Token.parse, Challenge.parse, decode_key, lambda d: issue(SIGNER, KEY, d)):
        with pytest.raises((Malformed, Unsupported)):
            parse(data)


@given(st.binary(min_size=TOKEN_LENGTH - 2, max_size=TOKEN_LENGTH - 2))
def test_random_tokens_never_verify(data):
    with pytest.raises((Rejected, InvalidSignature)):
        Token.parse(b"\0\x02" + data).verify(KEY, CHALLENGE)
