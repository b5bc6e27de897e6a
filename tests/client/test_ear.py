"""Attestation results: what is written is believed again, and one wrong thing at a time is not."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from quotary.attestation.jws import signing_input, unb64url
from quotary.canonical import b64
from quotary.client.ear import (
    AFFIRMING,
    CONTRAINDICATED,
    NONE,
    PROFILE,
    WARNING,
    Result,
    claims_of,
    jwk,
    sign_result,
    tier_of,
    verify_result,
)
from quotary.errors import Malformed, QuotaryError, Refused, Rejected
from tests.fakes.authority import NOW

KEY = ec.generate_private_key(ec.SECP256R1())
KEYS = json.dumps(
    {"keys": [jwk(ec.generate_private_key(ec.SECP256R1()).public_key()), jwk(KEY.public_key())]}
).encode()
NONCE = bytes(range(32))
GOOD = Result(
    "intel-tdx",
    AFFIRMING,
    {"hardware": 2, "configuration": 3, "runtime-opaque": 2},
    b"\1" * 32,
    NONCE,
    True,
    {"sha256": "00"},
    {"checks": []},
    "quotary test",
    NOW,
)


def token(**changes: object) -> str:
    """A good result with these claims changed; None takes one away."""
    claims = claims_of(GOOD) | changes
    return sign_result({name: value for name, value in claims.items() if value is not None}, KEY)


def refused(check: str, text: str, kind: type[QuotaryError] = Rejected, keys: bytes = KEYS, now=NOW) -> None:
    with pytest.raises(kind) as caught:
        verify_result(text, keys, NONCE, now)
    assert caught.value.check == check  # type: ignore[attr-defined]


def test_a_result_is_believed_again_with_its_claims() -> None:
    found = verify_result(token(), KEYS, NONCE, NOW)
    assert (found.status, found.statuses, found.at) == (AFFIRMING, {"intel-tdx": AFFIRMING}, NOW)
    assert found.vectors["intel-tdx"] == GOOD.vector
    assert found.claims["eat_profile"] == PROFILE == "tag:ietf.org,2026:rats/ear#04"
    assert found.claims["ear_verifier_id"] == {"developer": "https://quotary.dev", "build": "quotary test"}
    submodule = found.claims["submods"]["intel-tdx"]  # type: ignore[index]
    assert submodule["eat_nonce"] == found.claims["eat_nonce"] == b64(NONCE)
    assert submodule["ear_appraisal_policy_ids"] == ["sha256:" + "01" * 32]


def test_somebody_elses_tools_read_the_token_and_its_signature() -> None:
    """RFC 7515 by hand: three parts, and an ECDSA signature over the first two."""
    head, body, signature = token().split(".")
    assert json.loads(unb64url(head)) == {"alg": "ES256", "kid": jwk(KEY.public_key())["kid"], "typ": "JWT"}
    assert json.loads(unb64url(body)) == claims_of(GOOD)
    r, s = (int.from_bytes(unb64url(signature)[at : at + 32], "big") for at in (0, 32))
    key = KEY.public_key()
    key.verify(encode_dss_signature(r, s), f"{head}.{body}".encode(), ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(encode_dss_signature(r, s), f"{head}.{body}x".encode(), ec.ECDSA(SHA256()))


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    """RFC 7638 hashes the required members in order, without spaces."""
    found = jwk(KEY.public_key())
    text = f'{{"crv":"P-256","kty":"EC","x":"{found["x"]}","y":"{found["y"]}"}}'
    from hashlib import sha256

    assert unb64url(found["kid"]) == sha256(text.encode()).digest()


def test_a_nonce_that_was_not_answered_is_not_said_to_be_in_the_evidence() -> None:
    claims = claims_of(replace(GOOD, answered=False))
    assert claims["eat_nonce"] == b64(NONCE)
    assert "eat_nonce" not in claims["submods"]["intel-tdx"]  # type: ignore[index]
    for asked in (None, b"short", bytes(65)):
        assert "eat_nonce" not in claims_of(replace(GOOD, asked=asked))


def test_only_a_key_of_the_key_set_speaks() -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    refused("result key", sign_result(claims_of(GOOD), stranger))
    text = signing_input("ES256", jwk(KEY.public_key())["kid"], claims_of(GOOD))
    forged = f"{text}.{sign_result(claims_of(GOOD), stranger).split('.')[2]}"
    refused("result signature", forged)
    head, _, signature = token().split(".")
    refused("result signature", f"{head}.{signing_input('ES256', '', {'iat': 1}).split('.')[1]}.{signature}")


def test_a_result_is_of_the_profile_that_is_known() -> None:
    for profile in ("tag:ietf.org,2026:rats/ear#03", "tag:github.com,2023:veraison/ear", None):
        refused("result profile", token(eat_profile=profile))


def test_a_result_is_in_its_time() -> None:
    refused("result time", token(), now=NOW + timedelta(minutes=5, seconds=1))
    refused("result time", token(), now=NOW - timedelta(minutes=5, seconds=1))
    assert verify_result(token(), KEYS, NONCE, NOW + timedelta(minutes=5)).at == NOW
    for claim in ("iat", "exp"):
        with pytest.raises(Malformed, match=claim):
            verify_result(token(**{claim: None}), KEYS, NONCE, NOW)


def test_a_result_answers_our_nonce() -> None:
    for nonce in (b64(bytes(32)), "", None, 1):
        refused("result nonce", token(eat_nonce=nonce))
    assert verify_result(token(eat_nonce=None), KEYS, None, NOW).status == AFFIRMING


@pytest.mark.parametrize(
    ("status", "part", "vector"),
    [
        (AFFIRMING, AFFIRMING, {"hardware": 32}),
        (WARNING, WARNING, {"hardware": 96}),
        (NONE, NONE, {"hardware": 99}),
        (AFFIRMING, WARNING, {"hardware": 2}),
        (AFFIRMING, NONE, {"hardware": 2}),
        (WARNING, CONTRAINDICATED, {"hardware": 2}),
    ],
)
def test_a_status_better_than_its_parts_is_refused(status: str, part: str, vector: dict[str, int]) -> None:
    submodule = {"ear_status": part, "ear_trustworthiness_vector": vector}
    refused("result status", token(ear_status=status, submods={"x": submodule}), Refused)


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        (-128, CONTRAINDICATED), (-97, CONTRAINDICATED), (-96, WARNING), (-33, WARNING), (-32, AFFIRMING),
        (-2, AFFIRMING), (-1, NONE), (0, NONE), (1, NONE), (2, AFFIRMING), (31, AFFIRMING), (32, WARNING),
        (95, WARNING), (96, CONTRAINDICATED), (127, CONTRAINDICATED),
    ],
)  # fmt: skip
def test_the_tiers_are_those_of_the_draft(value: int, tier: str) -> None:
    assert tier_of(value) == tier


@pytest.mark.parametrize(
    "changes",
    [
        {"submods": {}},
        {"submods": None},
        {"submods": []},
        {"submods": [1]},
        {"submods": {"x": 1}},
        {"submods": {"x": {}}},
        {"submods": {"x": {"ear_status": "good"}}},
        {"submods": {"x": {"ear_status": "none", "ear_trustworthiness_vector": []}}},
        {"submods": {"x": {"ear_status": "none", "ear_trustworthiness_vector": {"hardware": "2"}}}},
        {"submods": {"x": {"ear_status": "none", "ear_trustworthiness_vector": {"hardware": True}}}},
        {"submods": {"x": {"ear_status": "none", "ear_trustworthiness_vector": {"hardware": 128}}}},
        {"submods": {"x": {"ear_status": "none", "ear_trustworthiness_vector": {"software": 2}}}},
        {"ear_status": None},
        {"ear_status": 2},
    ],
)
def test_claims_that_make_no_result_are_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        verify_result(token(**changes), KEYS, NONCE, NOW)


@pytest.mark.parametrize(
    "keys",
    [b"", b"[]", b"{}", b'{"keys":1}', json.dumps({"keys": [{}] * 65}).encode()],
)
def test_what_is_no_key_set_is_malformed(keys: bytes) -> None:
    with pytest.raises(Malformed):
        verify_result(token(), keys, NONCE, NOW)


def test_a_key_that_is_no_point_is_malformed() -> None:
    found = jwk(KEY.public_key())
    for member in ("AA", "A" * 80):
        with pytest.raises(Malformed):
            verify_result(token(), json.dumps({"keys": [found | {"x": member}]}).encode(), NONCE, NOW)
    for changed in ({"kty": "OKP"}, {"crv": "P-384"}, {"x": 1}):
        refused("result key", token(), keys=json.dumps({"keys": [found | changed]}).encode())
