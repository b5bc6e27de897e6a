"""Key files: made once, private to their owner, and of the one kind that statements are signed with."""

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from quotary.client import keys
from quotary.errors import CannotTell, Malformed, Refused, Unsupported


def test_a_new_key_is_private_and_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    made = keys.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.public(keys.load(path)) == keys.load_public(path) == made
    assert made.keyid == "sha256:" + hashlib.sha256(made.spki).hexdigest()
    assert len(made.spki) == 44


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    path.write_bytes(b"precious")
    with pytest.raises(Refused, match="exists"):
        keys.create(path)
    assert path.read_bytes() == b"precious"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match=r"cannot write .*owner.key"):
        keys.create(tmp_path / "absent" / "owner.key")
    with pytest.raises(CannotTell, match="cannot read the key file"):
        keys.load(tmp_path / "absent" / "owner.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_secret_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "owner.key"
    keys.create(path)
    path.chmod(mode)
    with pytest.raises(Refused, match=f"mode {mode:04o}") as refused:
        keys.load(path)
    assert refused.value.next_command == f"chmod 600 {path}"


def test_a_public_key_file_may_be_read_by_everybody(tmp_path: Path) -> None:
    made = keys.create(tmp_path / "owner.key")
    path = tmp_path / "owner.pub"
    path.write_bytes(made.pem)
    path.chmod(0o644)
    assert keys.load_public(path) == made


def test_keys_of_another_kind_are_unsupported(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "other.key"
    path.write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    with pytest.raises(Unsupported, match="Ed25519"):
        keys.load(path)
    path.write_bytes(
        other.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(Unsupported, match="Ed25519"):
        keys.load_public(path)


@pytest.mark.parametrize("data", [b"", b"not a key", b"x" * 20_000])
def test_a_file_without_a_key_is_malformed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "owner.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(Malformed):
        keys.load(path)
    with pytest.raises(Malformed):
        keys.load_public(path)
