"""Attestation results that a verifier signs: EAR (draft-ietf-rats-ear-04) as a JWT with ES256.

The trustworthiness vector is AR4SI's (draft-ietf-rats-ar4si). A category that nothing was checked for is
absent, and no status is better than the worst category. What was checked, and what was not, stands by name in
``ear_verifier_claims``. ``docs/formats/verifier.md`` describes every claim.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from quotary.attestation.certificates import require_within
from quotary.attestation.jws import ES256, Token, b64url, signing_input, unb64url
from quotary.canonical import b64, parse_json
from quotary.errors import Malformed, Refused, Rejected

PROFILE = "tag:ietf.org,2026:rats/ear#04"
OUR_PROFILE = "https://quotary.dev/ear/v1"
DEVELOPER = "https://quotary.dev"
LIFETIME = timedelta(minutes=5)
MAX_AHEAD = timedelta(minutes=5)
MAX_KEYS = 64
# A category that nothing is claimed of makes nothing worse; a status that claims nothing is no good one.
_BADNESS = {"none": 0, "affirming": 0, "warning": 1, "contraindicated": 2}
# EAT allows a nonce of so many bytes.
NONCE_LENGTHS = range(8, 65)

NONE, AFFIRMING, WARNING, CONTRAINDICATED = TIERS = ("none", "affirming", "warning", "contraindicated")
CATEGORIES = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a verifier says of one attester.

    label:    the platform, as the caller named it
    policy:   SHA-256 of the policy, 32 bytes
    asked:    the caller's challenge; None where there was none
    answered: the evidence holds that challenge
    evidence: what the evidence says (``facts_document`` without its checks)
    verifier: what was checked, and when
    """

    label: str
    status: str
    vector: Mapping[str, int]
    policy: bytes
    asked: bytes | None
    answered: bool
    evidence: Mapping[str, object]
    verifier: Mapping[str, object]
    build: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Statement:
    """A result that a known verifier signed and that is in its time.

    statuses: tier by submodule
    vectors:  AR4SI values by submodule
    claims:   everything as it was signed
    """

    status: str
    statuses: Mapping[str, str]
    vectors: Mapping[str, Mapping[str, int]]
    at: datetime
    claims: Mapping[str, object]


def claims_of(result: Result) -> dict[str, object]:
    """Write the claims of a result about one attester."""
    issued = int(result.at.astimezone(UTC).timestamp())
    nonce = _nonce(result.asked)
    submodule = {
        "eat_profile": OUR_PROFILE,
        "ear_status": result.status,
        "ear_trustworthiness_vector": dict(result.vector),
        "ear_appraisal_policy_ids": [f"sha256:{result.policy.hex()}"],
        **(nonce if result.answered else {}),
        "ear_attester_claims": dict(result.evidence),
        "ear_verifier_claims": dict(result.verifier),
    }
    return {
        "eat_profile": PROFILE,
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
        "ear_verifier_id": {"developer": DEVELOPER, "build": result.build},
        "ear_status": result.status,
        **nonce,
        "submods": {result.label: submodule},
    }


def sign_result(claims: Mapping[str, object], key: ec.EllipticCurvePrivateKey) -> str:
    """Sign claims with a P-256 key; the header names the key by its thumbprint (RFC 7638)."""
    text = signing_input(ES256, jwk(key.public_key())["kid"], claims)
    r, s = decode_dss_signature(key.sign(text.encode("ascii"), ec.ECDSA(SHA256())))
    return f"{text}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def verify_result(text: str, key_set: bytes, nonce: bytes | None, now: datetime) -> Statement:
    """Believe that a verifier of this key set said this, or raise ``Rejected`` or ``Refused``.

    1. The key that it names is in the key set and signed it.
    2. It is an attestation result of the one profile that is known.
    3. It is in its time.
    4. It is for our nonce, where we say one.
    5. No status is better than the worst value of its vector, nor the whole better than a part.
    """
    token = Token.parse(text)
    token.verify("result signature", ES256, _key_of(key_set, token.key_id))
    profile = token.claims.get("eat_profile")
    if profile != PROFILE:
        raise Rejected("result profile", str(profile)[:64], PROFILE)
    issued = token.time("iat")
    require_within("result time", issued - MAX_AHEAD, now, token.time("exp"))
    _require_nonce(token.claims.get("eat_nonce"), nonce)
    return _statement(token.claims, issued)


def jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Write a public key as JSON (RFC 7517), named by its thumbprint (RFC 7638)."""
    numbers = key.public_numbers()
    members = {
        "crv": "P-256",
        "kty": "EC",
        "x": b64url(numbers.x.to_bytes(32, "big")),
        "y": b64url(numbers.y.to_bytes(32, "big")),
    }
    thumbprint = json.dumps(members, separators=(",", ":"), sort_keys=True).encode("ascii")
    return {**members, "alg": ES256, "use": "sig", "kid": b64url(hashlib.sha256(thumbprint).digest())}


def tier_of(value: int) -> str:
    """Give the tier of an AR4SI value (draft-ietf-rats-ar4si, section 2.3.2)."""
    if not -128 <= value <= 127:
        raise Malformed(f"the trustworthiness value {value} is not of one byte")
    if -1 <= value <= 1:
        return NONE
    if 2 <= value <= 31 or -32 <= value <= -2:
        return AFFIRMING
    return WARNING if 32 <= value <= 95 or -96 <= value <= -33 else CONTRAINDICATED


def _nonce(asked: bytes | None) -> dict[str, object]:
    return {"eat_nonce": b64(asked)} if asked is not None and len(asked) in NONCE_LENGTHS else {}


def _require_nonce(found: object, nonce: bytes | None) -> None:
    if nonce is not None and not hmac.compare_digest(str(found).encode(), b64(nonce).encode()):
        raise Rejected("result nonce", str(found)[:96], b64(nonce))


def _key_of(key_set: bytes, key_id: str) -> ec.EllipticCurvePublicKey:
    found = parse_json(key_set, "a key set")
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise Malformed(f"a key set has not a list of at most {MAX_KEYS} keys")
    for member in keys:
        match member:
            case {"kid": kid, "kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)} if kid == key_id:
                return _point(x, y)
    raise Rejected("result key", key_id or "none named", "a key of the verifier's key set")


def _point(x: str, y: str) -> ec.EllipticCurvePublicKey:
    point = b"\4" + b"".join(unb64url(part).rjust(32, b"\0") for part in (x, y))
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as error:
        raise Malformed("a key of the key set is no point of P-256") from error


def _statement(claims: Mapping[str, object], issued: datetime) -> Statement:
    submodules = claims.get("submods")
    if not isinstance(submodules, dict) or not submodules:
        raise Malformed("an attestation result has no submods")
    statuses, vectors = {}, {}
    for name, found in submodules.items():
        if not isinstance(found, dict):
            raise Malformed(f"submodule {name[:64]} is not an object")
        vectors[name] = _vector(found.get("ear_trustworthiness_vector", {}))
        statuses[name] = _status(
            found.get("ear_status"), [tier_of(value) for value in vectors[name].values()]
        )
    whole = _status(claims.get("ear_status"), list(statuses.values()))
    if whole == AFFIRMING and set(statuses.values()) != {AFFIRMING}:
        raise Refused("result status", "affirming over a part that is not", "no better than its worst part")
    return Statement(whole, statuses, vectors, issued, claims)


def _vector(found: object) -> dict[str, int]:
    if not isinstance(found, dict) or not found.keys() <= set(CATEGORIES):
        raise Malformed("a trustworthiness vector has members that are unknown")
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in found.values()):
        raise Malformed("a trustworthiness vector holds something other than integers")
    return found


def _status(found: object, parts: list[str]) -> str:
    if found not in TIERS:
        raise Malformed(f"the status {str(found)[:32]} is no tier")
    worst = max(parts, key=_BADNESS.__getitem__, default=NONE)
    if _BADNESS[str(found)] < _BADNESS[worst]:
        raise Refused("result status", f"{found} over {worst}", "no better than its worst part")
    return str(found)
