"""Signing keys: Ed25519 in files, PKCS #8 PEM (RFC 8410), readable by their owner alone, or in
PKCS #11 tokens.

A secret is read from a file and never from an argument or the environment. What the library shows of a key
is its public half: ``keyid`` = ``sha256:`` + SHA-256(SubjectPublicKeyInfo), as in statements and policies.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from quotary.client.disk import PRIVATE, write_new
from quotary.ed25519 import check_public_key
from quotary.errors import Malformed, Refused, Unsupported, Usage
from quotary.secret import read_key_file, read_secret
from quotary.statements.envelope import Signer, key_id, spki
from quotary.token.place import TokenPlace


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The half of a key that everybody may see.

    keyid: ``sha256:`` and 64 hex digits over the SubjectPublicKeyInfo
    raw:   the 32 bytes of the Ed25519 point
    """

    keyid: str
    raw: bytes

    @property
    def spki(self) -> bytes:
        """Give the SubjectPublicKeyInfo in DER (44 bytes), as delegations and policies carry it."""
        return spki(self.raw)

    @property
    def pem(self) -> bytes:
        """Give the PEM file to hand to those who delegate to this key."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def create(path: Path) -> PublicKey:
    """Make a new key in a new file of mode 0600; an existing file is never replaced."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_new(path, pem, PRIVATE)
    except Usage as error:
        raise Refused("key file", f"{path} exists", "a new file") from error
    return public(key)


def create_in_token(path: Path, place: TokenPlace) -> PublicKey:
    """Make a new key inside a token, and the new file that says where it lies."""
    if path.suffix != ".token":
        raise Usage(f"{path} names a key in a token, and such a file's name ends in .token")
    if path.exists():
        raise Refused("key file", f"{path} exists", "a new file")
    _token().create_token_key(place)
    write_new(path, place.text().encode(), PRIVATE)
    return public(open_signer(path))


def load(path: Path) -> Ed25519PrivateKey:
    """Read a secret key; a file that others may read is refused before it is parsed."""
    pem = read_secret(path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Malformed(f"{path} is not an unencrypted PEM private key (PKCS #8)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Unsupported(f"{path} holds a {type(key).__name__}, statements are signed with Ed25519")
    return key


def open_signer(path: Path) -> Signer:
    """Open what signs statements: a key file, or a ``.token`` file that says where a token holds the key."""
    if path.suffix != ".token":
        return load(path)
    key: Signer = _token().TokenKey(TokenPlace.read(path))
    return key


def load_public(path: Path) -> PublicKey:
    """Read the public half from a public key file (PEM), a secret one, or the token that a file names."""
    if path.suffix == ".token":
        return public(open_signer(path))
    pem, _ = read_key_file(path)
    if b"PRIVATE KEY" in pem:
        return public(load(path))
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise Malformed(f"{path} is not a PEM key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Unsupported(f"{path} holds a {type(key).__name__}, statements are signed with Ed25519")
    check_public_key(key.public_bytes_raw())
    return _public(key)


def public(key: Signer) -> PublicKey:
    """Give the public half of a secret key."""
    return _public(key.public_key())


def _public(key: Ed25519PublicKey) -> PublicKey:
    raw = key.public_bytes_raw()
    return PublicKey(key_id(raw), raw)


def _token() -> ModuleType:
    # The module of a token is foreign code: only who has one loads it.
    try:
        return importlib.import_module("quotary.token.key")
    except ModuleNotFoundError as error:
        raise Unsupported(
            "keys in PKCS #11 tokens need python-pkcs11", next_command="pip install quotary[pkcs11]"
        ) from error
