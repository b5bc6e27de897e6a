"""Compact JWS: one spelling, one algorithm, and a header that chooses nothing (RFC 7515)."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from quotary.attestation.jws import ES256, ES384, MAX_TOKEN, Token, b64url, signing_input, unb64url
from quotary.errors import Malformed, Rejected, Unsupported

KEY = ec.generate_private_key(ec.SECP256R1())


def signed(text: str, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA256())))
    return f"{text}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def token(header: object, claims: object) -> str:
    return signed(".".join(b64url(json.dumps(part).encode()) for part in (header, claims)))


def raw(header: bytes, claims: bytes, signature: str = "AA") -> str:
    return f"{b64url(header)}.{b64url(claims)}.{signature}"


def test_what_was_signed_is_read_back_and_holds() -> None:
    found = Token.parse(signed(signing_input(ES256, "one", {"iss": "us", "iat": 5})))
    assert (found.algorithm, found.key_id, dict(found.claims)) == (ES256, "one", {"iss": "us", "iat": 5})
    assert found.time("iat").timestamp() == 5
    found.verify("result signature", ES256, KEY.public_key())


def test_another_key_algorithm_or_text_does_not_hold() -> None:
    text = signed(signing_input(ES256, "one", {"iss": "us"}))
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    for algorithm, key in ((ES256, stranger), (ES384, KEY.public_key()), (ES256, "no key")):
        with pytest.raises(Rejected, match="result signature"):
            Token.parse(text).verify("result signature", algorithm, key)
    head, body, signature = text.split(".")
    changed = b64url(unb64url(body).replace(b"us", b"me"))
    with pytest.raises(Rejected):
        Token.parse(f"{head}.{changed}.{signature}").verify("result signature", ES256, KEY.public_key())


def test_the_header_names_what_the_reader_expects_or_nothing_is_looked_at() -> None:
    for algorithm in ("none", "HS256", "ES384", "es256"):
        with pytest.raises(Rejected, match=f"algorithm {algorithm}"):
            Token.parse(token({"alg": algorithm}, {})).verify("x", ES256, KEY.public_key())
    with pytest.raises(Unsupported):
        Token.parse(token({"alg": ES256, "crit": ["b64"], "b64": False}, {}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "a..c",
        "=.=.=",
        " " + token({"alg": ES256}, {}),
        token({"alg": ES256}, {}) + "\n",
        token({}, {}),
        token({"alg": 1}, {}),
        token({"alg": ES256, "kid": 1}, {}),
        token([], {}),
        token({"alg": ES256}, []),
        token({"alg": ES256}, {"long": "x" * MAX_TOKEN}),
        raw(b"{", b"{}"),
        raw(b'{"alg":"ES256","alg":"none"}', b"{}"),
        raw(b'{"alg":"ES256"}', b"{}", "AB"),
        raw(b'{"alg":"ES256"}', b"{}", "A"),
    ],
)
def test_what_is_no_token_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Token.parse(text)


@pytest.mark.parametrize("value", [True, -1, 1.5, "1", None, 10**12])
def test_a_time_is_a_number_of_whole_seconds(value: object) -> None:
    found = Token.parse(token({"alg": ES256}, {"iat": value}))
    with pytest.raises(Malformed, match="iat"):
        found.time("iat")
    with pytest.raises(Malformed, match="exp"):
        found.time("exp")
