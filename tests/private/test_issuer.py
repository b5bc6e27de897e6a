"""The issuer as its customers meet it, and what it remembers of them."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from flask.testing import FlaskClient

from private import problems
from private.issuer import REQUEST_PATH, create_app
from private.issuing import LEDGER, Epoch, create_account, create_key, load_accounts, load_keys
from private.ledger import Ledger
from quotary.canonical import unb64
from quotary.errors import CannotTell, Malformed, Usage
from quotary.oblivious.privacy_pass import (
    DIRECTORY_PATH,
    DIRECTORY_TYPE,
    REQUEST_TYPE,
    Challenge,
    request_token,
)

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
CHALLENGE = Challenge("issuer.example.org", b"\x07" * 32, ())


def epoch(tier: str = "standard", begin: datetime = NOW, days: int = 7) -> Epoch:
    return Epoch(tier, begin, begin + timedelta(days=days), "log.example.org", "example.org/issuer", 1)


class Shop:
    """An issuer in a folder, and a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOW
        create_key(folder, epoch())
        create_key(folder, epoch("gold"))
        self.secret = create_account(folder, "standard", 3)

    @property
    def http(self) -> FlaskClient:
        ledger = Ledger(self.folder / LEDGER)
        return create_app(
            load_keys(self.folder), load_accounts(self.folder), ledger, lambda: self.now
        ).test_client()

    def key(self, tier: str = "standard") -> bytes:
        return next(key.public for key in load_keys(self.folder) if key.tier == tier)

    def ask(self, body: bytes, secret: str | None = None, media_type: str = REQUEST_TYPE):  # type: ignore[no-untyped-def]
        shown = {"Authorization": f"Bearer {self.secret if secret is None else secret}"}
        return self.http.post(REQUEST_PATH, data=body, content_type=media_type, headers=shown)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_customer_gets_a_token_that_verifies(shop: Shop) -> None:
    pending = request_token(shop.key(), CHALLENGE)
    reply = shop.ask(pending.request)
    assert (reply.status_code, reply.mimetype) == (200, "application/private-token-response")
    pending.finish(reply.data).verify(shop.key(), CHALLENGE)


def test_the_days_tokens_are_counted_over_restarts_and_come_back_the_next_day(shop: Shop) -> None:
    requests = [request_token(shop.key(), CHALLENGE).request for _ in range(4)]
    assert [shop.ask(request).status_code for request in requests] == [200, 200, 200, 429]
    assert shop.ask(requests[0]).headers["Retry-After"] == "3600"
    shop.now += timedelta(days=1)
    assert shop.ask(requests[0]).status_code == 200


def test_many_who_ask_at_once_get_no_more_than_the_days_tokens(tmp_path: Path) -> None:
    ledger, taken = Ledger(tmp_path / LEDGER), []

    def take() -> None:
        taken.extend(ledger.take(b"a", "2026-11-21", 5) for _ in range(5))

    threads = [Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 5


@pytest.mark.parametrize("secret", ["", "wrong", "Bearer"])
def test_who_shows_no_account_gets_nothing(shop: Shop, secret: str) -> None:
    reply = shop.ask(request_token(shop.key(), CHALLENGE).request, secret)
    assert (reply.status_code, reply.mimetype) == (401, problems.MEDIA_TYPE)


def test_a_tier_is_not_served_to_another_tiers_account(shop: Shop) -> None:
    request = request_token(shop.key("gold"), CHALLENGE).request
    if request[2] == request_token(shop.key(), CHALLENGE).request[2]:
        return
    reply = shop.ask(request)
    assert (reply.status_code, reply.mimetype) == (422, problems.MEDIA_TYPE)


def test_a_key_signs_in_its_epoch_only(shop: Shop) -> None:
    request = request_token(shop.key(), CHALLENGE).request
    for at in (NOW - timedelta(seconds=1), NOW + timedelta(days=7)):
        shop.now = at
        assert shop.ask(request).status_code == 422
        assert json.loads(shop.http.get(DIRECTORY_PATH).data)["token-keys"] == []


def test_the_directory_shows_the_keys_in_use(shop: Shop) -> None:
    reply = shop.http.get(DIRECTORY_PATH)
    assert reply.mimetype == DIRECTORY_TYPE
    document = json.loads(reply.data)
    assert document["issuer-request-uri"] == REQUEST_PATH
    assert {unb64(item["token-key"]) for item in document["token-keys"]} == {shop.key(), shop.key("gold")}


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [(b"", REQUEST_TYPE, 400), (bytes(258), REQUEST_TYPE, 400), (bytes(260), REQUEST_TYPE, 413),
     (bytes(9999), REQUEST_TYPE, 413), (b"\0\1" + bytes(257), REQUEST_TYPE, 415), (b"x", "application/json", 415)],
)  # fmt: skip
def test_what_is_no_request_costs_nothing(shop: Shop, body: bytes, media_type: str, status: int) -> None:
    assert shop.ask(body, media_type=media_type).status_code == status
    with sqlite3.connect(shop.folder / LEDGER) as database:
        assert database.execute("SELECT count(*) FROM issued").fetchone() == (0,)
    database.close()


def test_the_issuers_disk_says_how_many_and_nothing_of_which(shop: Shop) -> None:
    pending = request_token(shop.key(), CHALLENGE)
    token = pending.finish(shop.ask(pending.request).data)
    written = b"".join(path.read_bytes() for path in shop.folder.rglob("*") if path.is_file())
    for secret in (
        token.nonce,
        token.authenticator,
        CHALLENGE.digest,
        pending.request[3:],
        shop.secret.encode(),
    ):
        assert secret not in written


def test_secrets_and_keys_are_for_their_owner_alone(shop: Shop) -> None:
    files = [*(shop.folder / "keys").iterdir(), *(shop.folder / "accounts").iterdir()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_key_for_more_than_eight_days_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="8 days"):
        create_key(tmp_path, epoch(days=9))


def test_a_folder_without_keys_or_with_broken_ones_does_not_serve(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="no key"):
        load_keys(tmp_path / "nothing")
    path = next((shop.folder / "keys").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"private":"MII', b'"private":"MIJ'))
    with pytest.raises(Malformed):
        load_keys(shop.folder)


def test_a_ledger_that_cannot_be_opened_or_written_gives_no_token(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="ledger"):
        Ledger(tmp_path)
    ledger = Ledger(shop.folder / LEDGER)
    ledger.close()
    with pytest.raises(CannotTell, match="ledger"):
        ledger.take(b"a", "2026-11-21", 1)
