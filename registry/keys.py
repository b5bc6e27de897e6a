"""The log's secret keys in files of mode 0600 (PKCS #8 PEM): Ed25519 and ML-DSA-44."""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from quotary.errors import CannotTell, Malformed, Refused
from quotary.secret import read_secret
from registry.errors import FlushFailed


def create_ed25519(path: Path) -> Ed25519PrivateKey:
    """Make a key in a new file; an existing one is never replaced."""
    key = Ed25519PrivateKey.generate()
    _create(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def create_mldsa44(path: Path) -> MLDSA44PrivateKey:
    """Make a key in a new file; an existing one is never replaced."""
    key = MLDSA44PrivateKey.generate()
    _create(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def load_ed25519(path: Path) -> Ed25519PrivateKey:
    """Read a key that lies in a file."""
    key = _load(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise Malformed(f"{path} does not hold an Ed25519 key")
    return key


def load_mldsa44(path: Path) -> MLDSA44PrivateKey:
    key = _load(path)
    if not isinstance(key, MLDSA44PrivateKey):
        raise Malformed(f"{path} does not hold an ML-DSA-44 key")
    return key


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that after a power cut either the old or the new bytes are there.

    Raises ``FlushFailed`` where that cannot be said; the bytes may be read all the same.
    """
    beside = path.with_name(f".{path.name}.new")
    with open(beside, "wb", opener=_opener(os.O_TRUNC, mode)) as file:
        file.write(data)
        file.flush()
        _flush(file.fileno(), path)
    os.replace(beside, path)
    _sync_folder(path.parent)


def _create(path: Path, pem: bytes) -> None:
    try:
        with open(path, "xb", opener=_opener(os.O_EXCL, 0o600)) as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise Refused("key file", f"{path} exists", "a new file") from error
    except OSError as error:
        raise CannotTell(f"cannot write the key file {path}: {error.strerror}") from error
    _sync_folder(path.parent)


def _load(path: Path) -> object:
    pem = read_secret(path)
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Malformed(f"{path} is not an unencrypted PEM private key (PKCS #8)") from error


def _opener(flags: int, mode: int) -> Callable[[str, int], int]:
    return lambda name, usual: os.open(name, usual | flags, mode)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _flush(descriptor, folder)
    finally:
        os.close(descriptor)


def _flush(descriptor: int, path: Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise FlushFailed(f"a flush of {path} that failed: {error.strerror}") from error
