"""Tokens of NVIDIA's Remote Attestation Service (NRAS): NVIDIA's word about devices that it has verified.

A token is a detached EAT bundle (RFC 9711, section 5): one signed overall token with a digest of a signed
token for each device. Nothing of a device's own evidence is in it, so what it says is somebody's word and not
our verification. Keys live two days and vanish from the service's key set, which therefore travels beside the
token as the collateral's ``jwks``. ``docs/evidence-snp-nitro-nvidia.md`` explains each claim and check.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from quotary.attestation.certificates import Certificate, parse_certificate, require_issuer, require_within
from quotary.attestation.facts import Check
from quotary.attestation.jws import ES384, Token
from quotary.attestation.roots import Root, select_root
from quotary.canonical import parse_json
from quotary.errors import Malformed, Refused, Rejected

PLATFORM = "nvidia-nras"
ISSUER = "https://nras.attestation.nvidia.com"
MAX_BUNDLE = 1 << 20
MAX_KEY_SET = 1 << 20
MAX_KEYS = 128
MAX_DEVICES = 64
MAX_AGE = timedelta(hours=24)
MAX_AHEAD = timedelta(minutes=5)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RESULT = "x-nvidia-overall-att-result"
# What each device's token must say, besides the overall result.
_WANTED: Mapping[str, object] = {"measres": "success", "secboot": True, "dbgstat": "disabled"}
_WORD = "NVIDIA's word"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A well-formed bundle that nobody believes yet.

    devices: by the service's name for each (``GPU-0``): the token and the SHA-256 of its text
    """

    overall: Token
    devices: Mapping[str, tuple[Token, bytes]]

    @classmethod
    def parse(cls, data: bytes) -> "Bundle":
        """Read ``[["JWT", overall], {name: token}]``; raises ``Malformed`` or ``Unsupported``."""
        if len(data) > MAX_BUNDLE:
            raise Malformed(f"a bundle has {len(data)} bytes, at most {MAX_BUNDLE} are allowed")
        match parse_json(data, "a bundle of NVIDIA's service"):
            case [["JWT", str(overall)], dict(devices)] if 1 <= len(devices) <= MAX_DEVICES:
                return cls(Token.parse(overall), dict(map(_device, devices.items())))
        raise Malformed(f'a bundle is [["JWT", token], {{name: token}}] with 1 to {MAX_DEVICES} devices')


@dataclass(frozen=True, slots=True)
class ClaimedDevice:
    """One device as NVIDIA describes it; nothing here was verified by us.

    name:  the service's, ``GPU-0``
    ueid:  serial number of the device's certificate, decimal
    model: the boot ROM's name
    """

    name: str
    ueid: str
    model: str
    driver: str
    vbios: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What NVIDIA's service says, under a key that the pinned issuer certified."""

    devices: tuple[ClaimedDevice, ...]
    checks: tuple[Check, ...]
    simulated: bool


def verify(bundle: Bundle, key_set: str, nonce: bytes | None, now: datetime, roots: Sequence[Root]) -> Claims:
    """Believe that NVIDIA said this at most 24 hours ago, or raise ``Rejected`` or ``Refused``.

    1. The key that the overall token names is in the key set, and one of ``roots`` certified it for now.
    2. That key signed the overall token and every device's token, for NVIDIA's service.
    3. They are in their time, at most a day old, and about the nonce that was asked with.
    4. The overall token has the digest of each device's token, and of no other.
    5. NVIDIA found the devices genuine, and each as measured, without debug, started securely.
    """
    chain = signing_chain(key_set, bundle.overall.key_id)
    root = require_certified(chain, now, roots)
    tokens = (bundle.overall, *(token for token, _ in bundle.devices.values()))
    for token in tokens:
        _require_said(token, bundle.overall.key_id, chain[0])
        _require_fresh(token, now)
    asked = _require_nonce(tokens, nonce)
    _require_digests(bundle)
    _require_result(bundle)
    checks = (
        Check("nras issuer", chain[0].subject_text, f"in force at {now.isoformat()}", root.name),
        Check("nras signature", f"holds over {len(tokens)} tokens", ISSUER, "certified key"),
        Check("nras time", bundle.overall.time("iat").isoformat(), f"fresh at {now.isoformat()}", _WORD),
        Check("nras nonce", asked, "nonce of this verifier", "caller"),
        Check("nras submods", f"{len(bundle.devices)} devices", "the digests in the overall token", _WORD),
        Check("nras result", "genuine, as measured, no debug", "the same of every device", _WORD),
    )
    devices = tuple(_claimed(name, token) for name, (token, _) in bundle.devices.items())
    return Claims(devices, checks, root.simulated)


def signing_chain(key_set: str, key_id: str) -> tuple[Certificate, Certificate]:
    """Give the certificate of a key in a JWK set (RFC 7517) and the one above it; ``Rejected`` if not there.

    The bare key beside them is not looked at: only what is certified counts.
    """
    if len(key_set) > MAX_KEY_SET:
        raise Malformed(f"a key set has {len(key_set)} characters, at most {MAX_KEY_SET} are allowed")
    found = parse_json(key_set.encode("utf-8", "replace"), "a key set")
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS or not all(isinstance(key, dict) for key in keys):
        raise Malformed(f"a key set has not a list of at most {MAX_KEYS} keys")
    for key in keys:
        if key_id and key.get("kid") == key_id:
            match key.get("x5c"):
                case [str(leaf), str(above), *_]:
                    return _certificate(leaf), _certificate(above)
            raise Malformed(f"the key {key_id} has no two certificates")
    raise Rejected("nras key", key_id or "a token without kid", "a key of NVIDIA's key set")


def require_certified(chain: tuple[Certificate, Certificate], now: datetime, roots: Sequence[Root]) -> Root:
    """Require that the pinned issuer certified the leaf, both in force (check ``nras issuer``)."""
    leaf, issuer = chain
    root = select_root(roots, PLATFORM, chain)
    for certificate in chain:
        require_within("nras issuer", certificate.not_before, now, certificate.not_after)
        if certificate.unknown_critical:
            raise Rejected("nras issuer", f"critical extension {certificate.unknown_critical[0]}", "none")
    require_issuer("nras issuer", leaf, issuer, 0)
    if leaf.is_ca:
        raise Rejected("nras issuer", f"leaf {leaf.subject_text} is a CA", "an end certificate")
    return root


def _require_said(token: Token, key_id: str, leaf: Certificate) -> None:
    if token.key_id != key_id:
        raise Rejected("nras key", token.key_id or "none", f"{key_id}, as of the overall token")
    token.verify("nras signature", ES384, leaf.key)
    if token.claims.get("iss") != ISSUER:
        raise Rejected("nras signature", f"issuer {str(token.claims.get('iss'))[:64]}", ISSUER)


def _require_fresh(token: Token, now: datetime) -> None:
    at = token.time("iat")
    require_within("nras time", max(at, token.time("nbf")) - MAX_AHEAD, now, token.time("exp"))
    if now - at > MAX_AGE:
        raise Refused("nras age", f"{at.isoformat()}", f"at most 24 hours before {now.isoformat()}")


def _require_nonce(tokens: Sequence[Token], nonce: bytes | None) -> str:
    found = {str(token.claims.get("eat_nonce")) for token in tokens}
    if len(found) != 1:
        raise Rejected("nras nonce", f"{len(found)} nonces", "one, the same in every token")
    (text,) = found
    if nonce is None:
        return f"not checked: {text[:128]}"
    if not hmac.compare_digest(text.lower().encode("utf-8", "replace"), nonce.hex().encode()):
        raise Rejected("nras nonce", text[:128], nonce.hex())
    return nonce.hex()


def _require_digests(bundle: Bundle) -> None:
    wanted = {name: ["DIGEST", ["SHA-256", digest.hex()]] for name, (_, digest) in bundle.devices.items()}
    found = bundle.overall.claims.get("submods")
    if found != wanted:
        names = ", ".join(found) if isinstance(found, dict) else "none"
        raise Rejected(
            "nras submods", f"digests of {names[:128]}", f"of {', '.join(wanted)[:128]}, as they are"
        )


def _require_result(bundle: Bundle) -> None:
    overall = bundle.overall.claims.get(_RESULT)
    if overall is not True:
        raise Refused("nras result", f"{_RESULT} {overall!r:.32}", "true")
    for name, (token, _) in bundle.devices.items():
        for claim, wanted in _WANTED.items():
            said = token.claims.get(claim)
            if said != wanted or type(said) is not type(wanted):
                raise Refused("nras result", f"{name}: {claim} {said!r:.32}", f"{wanted}")


def _device(item: tuple[str, object]) -> tuple[str, tuple[Token, bytes]]:
    name, text = item
    if _NAME.fullmatch(name) is None or not isinstance(text, str):
        raise Malformed("a bundle's device has no name or no token")
    return name, (Token.parse(text), hashlib.sha256(text.encode("ascii")).digest())


def _claimed(name: str, token: Token) -> ClaimedDevice:
    def text(*claims: str) -> str:
        return next((str(token.claims[claim])[:64] for claim in claims if claim in token.claims), "")

    return ClaimedDevice(
        name,
        text("ueid"),
        text("hwmodel"),
        text("x-nvidia-gpu-driver-version"),
        text("x-nvidia-gpu-vbios-version", "x-nvidia-switch-bios-version"),
    )


def _certificate(text: str) -> Certificate:
    try:
        return parse_certificate(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise Malformed("a certificate of a key set is not base64") from error
