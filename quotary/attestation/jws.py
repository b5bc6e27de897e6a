"""Signed JSON in its compact form (RFC 7515, section 7.1), with the one algorithm that the reader expects.

The header chooses nothing: not the algorithm, not the key, not where one lies. ``none`` and every other word
than the reader's is refused before anything else is looked at.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from quotary.attestation.certificates import verify_p256
from quotary.attestation.p384 import verify_p384
from quotary.canonical import parse_json
from quotary.errors import Malformed, Rejected, Unsupported

ES256, ES384 = "ES256", "ES384"
MAX_TOKEN = 64 * 1024
MAX_SECONDS = 253_402_300_799

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed token that nobody believes yet.

    key_id: the header's ``kid``; empty where it has none
    claims: the payload, a JSON object
    signed: the exact bytes under the signature
    """

    algorithm: str
    key_id: str
    claims: Mapping[str, object]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Read a token of at most 64 KiB; raises ``Malformed``, and ``Unsupported`` for critical headers."""
        match = _COMPACT.fullmatch(text) if len(text) <= MAX_TOKEN else None
        if match is None:
            raise Malformed(f"not a compact JWS of at most {MAX_TOKEN} characters")
        header = _object(match[1], "header")
        if "crit" in header:
            raise Unsupported("the token's header has critical members, none is known")
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or not isinstance(key_id, str):
            raise Malformed("the token's header has no alg, or alg or kid are no strings")
        signed = f"{match[1]}.{match[2]}".encode("ascii")
        return cls(algorithm, key_id, _object(match[2], "payload"), signed, unb64url(match[3]))

    def verify(self, what: str, algorithm: str, key: object) -> None:
        """Require that ``key`` signed the token with ``algorithm`` (check ``what``)."""
        if self.algorithm != algorithm:
            raise Rejected(what, f"algorithm {self.algorithm[:16]}", algorithm)
        verify = verify_p256 if algorithm == ES256 else verify_p384
        verify(what, key, self.signature, self.signed)

    def time(self, name: str) -> datetime:
        """Read a claim of whole POSIX seconds (RFC 7519 allows fractions; nobody here writes them)."""
        found = self.claims.get(name)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MAX_SECONDS:
            raise Malformed(f"the token's claim {name} is not a number of whole seconds since 1970")
        return datetime.fromtimestamp(found, UTC)


def signing_input(algorithm: str, key_id: str, claims: Mapping[str, object]) -> str:
    """Write what is to be signed: header and payload."""
    header = {"alg": algorithm, "kid": key_id, "typ": "JWT"}
    return f"{b64url(_json(header))}.{b64url(_json(claims))}"


def b64url(data: bytes) -> str:
    """Write base64 for addresses, without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """Read base64 for addresses that encodes again to the same text."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise Malformed("not base64 for addresses") from error
    if b64url(data) != text:
        raise Malformed("not canonical base64 for addresses")
    return data


def _object(text: str, what: str) -> Mapping[str, object]:
    found = parse_json(unb64url(text), f"the token's {what}")
    if not isinstance(found, dict):
        raise Malformed(f"the token's {what} is not an object")
    return found


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode("ascii")
