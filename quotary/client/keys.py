"""Signing keys in files: Ed25519, PKCS #8 PEM (RFC 8410), readable by their owner alone.

A secret is read from a file and never from an argument or the environment. What the library shows of a key
is its public half: ``keyid`` = ``sha256:`` + SHA-256(SubjectPublicKeyInfo), as in statements and policies.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from quotary.client.disk import PRIVATE, write_new
from quotary.ed25519 import check_public_key
from quotary.errors import CannotTell, Malformed, Refused, Unsupported, Usage
from quotary.statements.envelope import key_id, spki

MAX_KEY_FILE = 16_384


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


def load(path: Path) -> Ed25519PrivateKey:
    """Read a secret key; a file that others may read is refused before it is parsed."""
    pem = _read(path, secret=True)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Malformed(f"{path} is not an unencrypted PEM private key (PKCS #8)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Unsupported(f"{path} holds a {type(key).__name__}, statements are signed with Ed25519")
    return key


def load_public(path: Path) -> PublicKey:
    """Read the public half from a public key file (PEM) or from a secret one."""
    pem = _read(path, secret=False)
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


def public(key: Ed25519PrivateKey) -> PublicKey:
    """Give the public half of a secret key."""
    return _public(key.public_key())


def _public(key: Ed25519PublicKey) -> PublicKey:
    raw = key.public_bytes_raw()
    return PublicKey(key_id(raw), raw)


def _read(path: Path, *, secret: bool) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise CannotTell(f"cannot read the key file {path}: {error.strerror}") from error
    if secret and mode & 0o077:
        raise Refused(
            "key file", f"{path} with mode {mode:04o}", "mode 0600", next_command=f"chmod 600 {path}"
        )
    if len(data) > MAX_KEY_FILE:
        raise Malformed(f"key file {path} has more than {MAX_KEY_FILE} bytes")
    return data
