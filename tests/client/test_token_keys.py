"""Statements signed by a key that lives in a PKCS #11 token: SoftHSM 2, whose library is the one real thing here."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.cli import revoke, sign
from quotary.cli.keys import keys as keys_group
from quotary.client import keys
from quotary.errors import Refused, Unsupported, Usage
from quotary.statements.envelope import Envelope, verify
from quotary.token.errors import TokenRefused, TokenUnavailable
from quotary.token.place import TokenPlace
from tests.fakes import hsm


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenPlace:
    return hsm.new_token(tmp_path / "hsm", monkeypatch, label="ci")


def options(place: TokenPlace) -> list[str]:
    return ["--hsm-module", place.module, "--hsm", place.token, "--hsm-pin-file", place.pin_file]


def test_a_statement_is_signed_by_a_key_that_never_leaves_its_token(
    tmp_path: Path, place: TokenPlace
) -> None:
    path = tmp_path / "builder.token"
    runner = CliRunner()
    done = runner.invoke(keys_group, ["new", str(path), *options(place)], catch_exceptions=False)
    assert done.exit_code == 0
    assert hsm.PIN.encode() not in path.read_bytes()
    made = keys.load_public(path)
    assert made.keyid in done.output
    words = ["--release", "sha256:" + "ab" * 32, "--service", "chat", "--reason", "wrong weights"]
    words += ["--origin", "log.example.org/simulation", "--sequence", "1", "--out", str(tmp_path / "r.json")]
    assert runner.invoke(revoke, words, catch_exceptions=False).exit_code == 0
    words = [str(tmp_path / "r.json"), "--key", str(path), "--out", str(tmp_path / "r.entry")]
    assert runner.invoke(sign, words, catch_exceptions=False).exit_code == 0
    envelope = Envelope.parse((tmp_path / "r.entry").read_bytes())
    (signature,) = envelope.signatures
    assert signature.keyid == made.keyid
    verify(made.raw, signature, envelope.payload)


def test_a_token_that_is_away_or_refuses_the_pin_makes_no_signature(
    tmp_path: Path, place: TokenPlace
) -> None:
    path = tmp_path / "builder.token"
    keys.create_in_token(path, place)
    hsm.take_away(tmp_path / "hsm")
    with pytest.raises(TokenUnavailable, match="token ci cannot be used"):
        keys.open_signer(path)
    hsm.put_back(tmp_path / "hsm")
    Path(place.pin_file).write_text("wrong\n")
    with pytest.raises(TokenRefused, match="PIN of token ci"):
        keys.open_signer(path)
    Path(place.pin_file).chmod(0o644)
    with pytest.raises(Refused, match="mode 0644"):
        keys.open_signer(path)


def test_no_key_in_a_token_is_made_over_another(tmp_path: Path, place: TokenPlace) -> None:
    keys.create_in_token(tmp_path / "builder.token", place)
    with pytest.raises(Refused, match="a new file"):
        keys.create_in_token(tmp_path / "builder.token", place)
    with pytest.raises(Refused, match="a new label"):
        keys.create_in_token(tmp_path / "other.token", place)
    with pytest.raises(Usage, match=r"ends in \.token"):
        keys.create_in_token(tmp_path / "builder.key", place)
    some = CliRunner().invoke(keys_group, ["new", str(tmp_path / "k.token"), *options(place)[:4]])
    assert isinstance(some.exception, Usage)
    assert not (tmp_path / "k.token").exists()


def test_without_the_binding_a_token_is_unsupported_and_a_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "builder.token"
    path.write_text(TokenPlace("/lib/token.so", "ci", "builder", str(tmp_path / "pin")).text())
    monkeypatch.delitem(sys.modules, "quotary.token.key", raising=False)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(Unsupported, match="python-pkcs11"):
        keys.open_signer(path)
    made = keys.create(tmp_path / "builder.key")
    assert keys.public(keys.open_signer(tmp_path / "builder.key")) == made
