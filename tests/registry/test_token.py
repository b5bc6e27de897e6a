"""A log whose Ed25519 key lives in a PKCS #11 token: SoftHSM 2, whose library is the one real thing here."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute

from quotary.errors import CannotTell, Malformed, Refused, Usage
from quotary.tlog.policy import TlogPolicy
from quotary.token.errors import TokenRefused, TokenUnavailable
from quotary.token.key import TokenKey, create_token_key
from quotary.token.place import TokenPlace
from registry.cli_options import token_place
from registry.errors import SignerUnavailable
from registry.fsck import check_store
from registry.identity import FIRST_IN_TOKEN, load_log_keys, public_keys, read_public
from registry.memory import recall
from tests.fakes import hsm
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Local, local
from tests.fakes.processes import Log, Server, command, until

LOG_TOKEN = FIRST_IN_TOKEN[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenPlace:
    return hsm.new_token(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def log(tmp_path: Path, place: TokenPlace) -> Iterator[Local]:
    with local(tmp_path, token=place) as found:
        found.loop.round()
        yield found


def objects(place: TokenPlace) -> list[pkcs11.Object]:
    library = pkcs11.lib(place.module)
    library.reinitialize()
    session = library.get_token(token_label=place.token).open(rw=True, user_pin=hsm.PIN)
    return list(session.get_objects({Attribute.LABEL: place.key}))


def test_a_log_signed_by_a_token_verifies_like_any_other(log: Local) -> None:
    made = log.authority
    log.append(made.allocation(), made.delegation(), made.release("r1"))
    policy = TlogPolicy.parse(log.config.policy.read_text("utf-8"))
    published = log.store.read.published()
    assert published is not None
    assert policy.verify(published.note).checkpoint.size == 6
    assert check_store(log.store.read, ORIGIN, policy).checkpoints == 2
    assert not (log.config.keys / "log-ed25519.pem").exists()
    assert recall(log.config.keys / "signed-head.json").size == 6


def test_the_key_cannot_leave_the_token(log: Local, place: TokenPlace) -> None:
    (secret,) = [found for found in objects(place) if isinstance(found, pkcs11.PrivateKey)]
    assert (secret[Attribute.SENSITIVE], secret[Attribute.EXTRACTABLE]) == (True, False)


def test_a_token_that_goes_away_stops_the_log_and_one_that_comes_back_lets_it_go_on(
    log: Local, tmp_path: Path
) -> None:
    memory = log.config.keys / "signed-head.json"
    before, size = memory.read_bytes(), log.store.read.published_size()
    hsm.take_away(tmp_path / "hsm")
    log.append(log.authority.allocation())
    with pytest.raises(SignerUnavailable, match="token quotary cannot be used"):
        log.sequencer.sign()
    assert (memory.read_bytes(), log.store.read.published_size()) == (before, size)
    assert log.signer.head().size == size
    hsm.put_back(tmp_path / "hsm")
    log.loop.round()
    assert log.store.read.published_size() == size + 2


def test_a_lost_session_is_opened_again(log: Local, place: TokenPlace) -> None:
    objects(place)  # which starts the module anew under the signer
    log.append(log.authority.allocation())
    assert recall(log.config.keys / "signed-head.json").size == 4


def test_a_refused_pin_is_not_tried_again(log: Local, place: TokenPlace) -> None:
    key = TokenKey(place)
    pin = Path(place.pin_file)
    pin.write_text("wrong", "ascii")
    pkcs11.lib(place.module).reinitialize()
    with pytest.raises(TokenRefused, match="PinIncorrect"):
        key.sign(b"x")
    pin.write_text(hsm.PIN, "ascii")
    with pytest.raises(TokenRefused, match="PinIncorrect"):
        key.sign(b"x")
    assert len(TokenKey(place).sign(b"x")) == 64


def test_a_signature_that_does_not_hold_is_remembered_by_nobody(log: Local, place: TokenPlace) -> None:
    before = recall(log.config.keys / "signed-head.json")
    for found in objects(place):
        found.destroy()
    create_token_key(place)
    log.append(log.authority.allocation())
    with pytest.raises(SignerUnavailable, match="does not hold"):
        log.sequencer.sign()
    assert recall(log.config.keys / "signed-head.json") == before


def test_a_key_in_a_token_is_never_replaced(place: TokenPlace) -> None:
    create_token_key(place)
    with pytest.raises(Refused, match="exists in quotary"):
        create_token_key(place)
    assert len(objects(place)) == 2


def test_a_missing_token_pin_key_or_module_is_named(place: TokenPlace, tmp_path: Path) -> None:
    create_token_key(place)
    other = {"token": "nobody", "key": "no key", "module": "/nowhere.so"}
    for name, value in other.items():
        wrong = TokenPlace(**{**{m: getattr(place, m) for m in place.__slots__}, name: value})
        with pytest.raises(TokenUnavailable, match="cannot be used"):
            TokenKey(wrong)
    (tmp_path / "wrong").touch(0o600)
    (tmp_path / "wrong").write_text("1234", "ascii")
    with pytest.raises(TokenRefused, match="PinIncorrect"):
        TokenKey(TokenPlace(place.module, place.token, place.key, str(tmp_path / "wrong")))
    Path(place.pin_file).chmod(0o644)
    with pytest.raises(Refused, match="mode 0644"):
        TokenKey(place)


@pytest.mark.parametrize(
    "text", ["", 'module = "x"\n', 'module = 1\ntoken = "a"\nkey = "b"\npin_file = "c"\n', "="]
)
def test_a_token_file_of_another_shape_is_malformed(tmp_path: Path, text: str) -> None:
    (tmp_path / LOG_TOKEN).write_text(text, "utf-8")
    with pytest.raises(Malformed):
        TokenPlace.read(tmp_path / LOG_TOKEN)


def test_a_token_file_that_is_not_there_or_could_not_be_read_back_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="cannot read"):
        TokenPlace.read(tmp_path / LOG_TOKEN)
    with pytest.raises(Malformed, match="quotes"):
        TokenPlace("a\\b", "c", "d", "e").text()


def test_the_options_of_init_go_together() -> None:
    assert token_place(ORIGIN, None, None, None) is None
    with pytest.raises(Usage):
        token_place(ORIGIN, "/lib.so", None, "pin")


def test_a_registry_over_a_token_remembers_its_head_through_a_killed_signer(
    tmp_path: Path, place: TokenPlace
) -> None:
    folder = tmp_path / "log"
    words = ["--hsm-module", place.module, "--hsm", place.token, "--hsm-pin-file", place.pin_file]
    made = command("init", "--dir", str(folder), "--origin", ORIGIN, "--publish-interval", "0.1", *words)
    assert made.returncode == 0, made.stderr
    assert public_keys(load_log_keys(folder / "keys", ORIGIN)) == read_public(folder / "keys" / "public")
    serve = ["serve", "--dir", str(folder), "--bind", "127.0.0.1:0"]
    server = Server(serve, tmp_path / "stderr").start()
    log = Log(folder, server, server, None)  # type: ignore[arg-type]  # no witness, nobody submits
    try:
        log.wait_ready()
        size = log.policy.verify(log.get("/checkpoint")).checkpoint.size
        (pid,) = server.children("sign")
        server.kill_child("sign")
        until(lambda: server.children("sign") not in ([], [pid]), "the signer is started again")
        log.wait_ready()
        assert recall(folder / "keys" / "signed-head.json").size == size
        lines = [json.loads(line) for line in server.log().splitlines()]
        assert {line["code"] for line in lines if line["event"] == "child.ended"} == {-signal.SIGKILL}
        assert hsm.PIN not in server.log()
    finally:
        log.stop_registry()


def test_two_keys_of_one_token_sign_in_turns(place: TokenPlace) -> None:
    places = [replace(place, key=f"log {number}") for number in range(2)]
    for found in places:
        create_token_key(found)
    signing = [TokenKey(found) for found in places]
    for _ in range(3):
        for key in signing:
            key.public_key().verify(key.sign(b"x"), b"x")
    assert signing[0].public_key() != signing[1].public_key()
