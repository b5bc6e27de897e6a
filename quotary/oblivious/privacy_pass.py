"""Privacy Pass tokens of type 0x0002, blind RSA with 2048 bits (RFC 9577 and RFC 9578).

An issuer signs without seeing what; whoever has its public key verifies; nobody can say which request of the
issuer a token came from. A challenge may name a context of 32 bytes: ours is the digest of one enclave's
keyset, so a token is worth something at that enclave only, and its memory of spent ones is the whole memory.
"""

import base64
import binascii
import hashlib
import re
import secrets
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from quotary.errors import Malformed, Rejected, Unsupported
from quotary.oblivious import blind_rsa
from quotary.oblivious.blind_rsa import Signer

TOKEN_TYPE = 0x0002
KEY_LENGTH = 256
TOKEN_LENGTH = 2 + 32 + 32 + 32 + KEY_LENGTH
REQUEST_TYPE, RESPONSE_TYPE = "application/private-token-request", "application/private-token-response"
DIRECTORY_TYPE = "application/private-token-issuer-directory"
DIRECTORY_PATH = "/.well-known/private-token-issuer-directory"

_REQUEST = struct.Struct(f">HB{KEY_LENGTH}s")
_TOKEN = struct.Struct(f">H32s32s32s{KEY_LENGTH}s")
_INPUT = struct.Struct(">H32s32s32s")
_HEADER = re.compile(r'PrivateToken token="?([A-Za-z0-9_-]+={0,2})"?')

# SubjectPublicKeyInfo of an RSA-2048 key with exponent 65537 under id-RSASSA-PSS with SHA-384, MGF1 with
# SHA-384 and a salt of 48 (RFC 9578 section 6.5); only the modulus varies.
_SPKI_HEAD = bytes.fromhex(
    "30820152303d06092a864886f70d01010a3030a00d300b0609608648016503040202a11a301806092a864886f70d010108"
    "300b0609608648016503040202a2030201300382010f003082010a02820101" "00"
)  # fmt: skip
_SPKI_TAIL = bytes.fromhex("0203010001")


def encode_key(key: rsa.RSAPublicKey) -> bytes:
    """Encode an issuer's public key as SubjectPublicKeyInfo, 342 bytes."""
    n = key.public_numbers().n
    if key.key_size != 8 * KEY_LENGTH or key.public_numbers().e != 65537:
        raise Malformed("an issuer's key is RSA with 2048 bits and exponent 65537")
    return _SPKI_HEAD + n.to_bytes(KEY_LENGTH, "big") + _SPKI_TAIL


def decode_key(data: bytes) -> rsa.RSAPublicKey:
    """Read an issuer's public key; every byte but the modulus is fixed."""
    head, n, tail = (
        data[: len(_SPKI_HEAD)],
        data[len(_SPKI_HEAD) : -len(_SPKI_TAIL)],
        data[-len(_SPKI_TAIL) :],
    )
    if head != _SPKI_HEAD or tail != _SPKI_TAIL or len(n) != KEY_LENGTH or not n[0] & 0x80 or not n[-1] & 1:
        raise Malformed("not the public key of an issuer of type 2")
    return rsa.RSAPublicNumbers(65537, int.from_bytes(n, "big")).public_key()


def key_id(encoded: bytes) -> bytes:
    """SHA-256 over the encoded key, 32 bytes."""
    return hashlib.sha256(encoded).digest()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a token is good for (RFC 9577 section 2.1).

    issuer:  its name; origins: names of who may take the token, none for anyone
    context: empty or 32 bytes
    """

    issuer: str
    context: bytes
    origins: tuple[str, ...]

    def encode(self) -> bytes:
        issuer, origins = self.issuer.encode("ascii"), ",".join(self.origins).encode("ascii")
        return b"".join(
            (
                struct.pack(">HH", TOKEN_TYPE, len(issuer)), issuer,
                struct.pack(">B", len(self.context)), self.context,
                struct.pack(">H", len(origins)), origins,
            )
        )  # fmt: skip

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def parse(cls, data: bytes) -> "Challenge":
        kind, rest = _number(data, 2)
        if kind != TOKEN_TYPE:
            raise Unsupported(f"a challenge for tokens of type {kind}")
        issuer, rest = _vector(rest, 2)
        context, rest = _vector(rest, 1)
        origins, rest = _vector(rest, 2)
        if rest or not issuer or len(context) not in (0, 32):
            raise Malformed("not a challenge for a token")
        try:
            names = tuple(origins.decode("ascii").split(",")) if origins else ()
            return cls(issuer.decode("ascii"), context, names)
        except UnicodeDecodeError as error:
            raise Malformed("a challenge has names that are not ASCII") from error


@dataclass(frozen=True, slots=True)
class Token:
    """A finished token (RFC 9577 section 2.2), 354 bytes on the wire."""

    nonce: bytes
    challenge_digest: bytes
    key_id: bytes
    authenticator: bytes

    def encode(self) -> bytes:
        return _TOKEN.pack(TOKEN_TYPE, self.nonce, self.challenge_digest, self.key_id, self.authenticator)

    def header(self) -> str:
        """Write the value of ``Authorization`` that spends the token."""
        return f'PrivateToken token="{base64.urlsafe_b64encode(self.encode()).decode()}"'

    @classmethod
    def parse(cls, data: bytes) -> "Token":
        if len(data) != TOKEN_LENGTH:
            raise Malformed(f"a token has {len(data)} bytes, one of type 2 has {TOKEN_LENGTH}")
        kind, *parts = _TOKEN.unpack(data)
        if kind != TOKEN_TYPE:
            raise Unsupported(f"a token of type {kind}")
        return cls(*parts)

    @classmethod
    def from_header(cls, value: str) -> "Token":
        """Read the value of ``Authorization``."""
        found = _HEADER.fullmatch(value)
        if found is None:
            raise Malformed("Authorization is not PrivateToken with a token")
        text = found[1].rstrip("=")
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error as error:
            raise Malformed("a token is not in base64url") from error
        return cls.parse(data)

    def verify(self, key: bytes, challenge: Challenge) -> None:
        """Check that the issuer with this encoded key signed the token for this challenge.

        Raises ``Rejected`` for another key or challenge, ``InvalidSignature`` for a signature that fails.
        Whether the token was spent before is the caller's memory.
        """
        if self.key_id != key_id(key):
            raise Rejected("token key", self.key_id.hex(), key_id(key).hex())
        if self.challenge_digest != challenge.digest:
            raise Rejected("token challenge", self.challenge_digest.hex(), challenge.digest.hex())
        blind_rsa.verify(decode_key(key), self.signed(), self.authenticator)

    def signed(self) -> bytes:
        """Give the 98 bytes that the issuer signs unseen."""
        return _INPUT.pack(TOKEN_TYPE, self.nonce, self.challenge_digest, self.key_id)


@dataclass(frozen=True, slots=True)
class Pending:
    """A token that its issuer has not signed yet: ``request`` goes there, ``finish`` takes the answer.

    token: without its signature; key: the issuer's, encoded; inverse: the secret that undoes the blinding
    """

    request: bytes
    token: Token
    key: bytes
    inverse: int

    def finish(self, response: bytes) -> Token:
        """Unblind the issuer's answer, or raise ``Rejected`` where it is not a signature of this token."""
        token = self.token
        signature = blind_rsa.finalize(decode_key(self.key), token.signed(), response, self.inverse)
        return Token(token.nonce, token.challenge_digest, token.key_id, signature)


def request_token(
    key: bytes, challenge: Challenge, *, nonce: bytes | None = None, salt: bytes | None = None,
    factor: int | None = None,
) -> Pending:  # fmt: skip
    """Begin a token for a challenge under an issuer's encoded key (RFC 9578 section 6.1).

    ``nonce``, ``salt`` and ``factor`` are for the test vectors alone.
    """
    token = Token(nonce or secrets.token_bytes(32), challenge.digest, key_id(key), b"\0" * KEY_LENGTH)
    blinded = blind_rsa.blind(decode_key(key), token.signed(), salt=salt, factor=factor)
    request = _REQUEST.pack(TOKEN_TYPE, token.key_id[-1], blinded.message)
    return Pending(request, token, key, blinded.inverse)


def parse_request(data: bytes) -> tuple[int, bytes]:
    """Read a token request: the last byte of the key's id, and the blinded message."""
    if len(data) != _REQUEST.size:
        raise Malformed(f"a token request has {len(data)} bytes, one of type 2 has {_REQUEST.size}")
    kind, truncated, blinded = _REQUEST.unpack(data)
    if kind != TOKEN_TYPE:
        raise Unsupported(f"a request for tokens of type {kind}")
    return truncated, blinded


def issue(signer: Signer, encoded: bytes, request: bytes) -> bytes:
    """Answer a token request with the key it means (section 6.2); ``Rejected`` if it means another."""
    truncated, blinded = parse_request(request)
    wanted = key_id(encoded)[-1]
    if truncated != wanted:
        raise Rejected("token key", f"{truncated:02x}", f"{wanted:02x}")
    return signer.sign(blinded)


def _number(data: bytes, length: int) -> tuple[int, bytes]:
    if len(data) < length:
        raise Malformed("a challenge is cut")
    return int.from_bytes(data[:length], "big"), data[length:]


def _vector(data: bytes, width: int) -> tuple[bytes, bytes]:
    length, rest = _number(data, width)
    if len(rest) < length:
        raise Malformed("a challenge is cut")
    return rest[:length], rest[length:]
