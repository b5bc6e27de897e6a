"""Tokens from the log's word of their key to an answer that cost one: a real issuer, log proofs and enclave."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from enclave.chat import APIError
from enclave.keyset import LiveKeyset
from enclave.tokens import LOOK_SECONDS, MAX_AGE_SECONDS, TokenGate, TokenRefused
from private.issuer import create_app
from private.issuing import LEDGER, Epoch, create_account, create_key, load_accounts, load_keys
from private.ledger import Ledger
from quotary.canonical import Fields, parse_canonical
from quotary.client.issuer import IssuerKey, challenge, issuer_keys, read_issuer_key
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.purse import Purse
from quotary.client.session import TokenSource
from quotary.errors import CannotTell, Malformed, NotAuthorised, QuotaryError, Refused, Rejected
from quotary.net.transport import Reply, Request
from quotary.oblivious.privacy_pass import request_token
from quotary.statements.envelope import Envelope, sign
from quotary.statements.schema import parse_statement, statement_payload
from tests.fakes import authority
from tests.fakes.clock import SteppedClock
from tests.fakes.log import FakeLog, policy_bytes, policy_document

NOW, SERVICE = authority.NOW, "example.org/issuer"
LOG, ISSUER = "http://127.0.0.1:2", "http://127.0.0.1:4"
RULES = {
    "name": "issuer.example.org",
    "service": SERVICE,
    "signers": {"keys": authority.keys("builder1", "builder2"), "threshold": 1},
}
KEYSET = b"K" * 32


@dataclass(slots=True)
class Street:
    """An issuer and a log behind one transport. kinds: what the log's search claims of entries."""

    folder: Path
    log: FakeLog = field(default_factory=FakeLog)
    kinds: dict[int, str] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    down: bool = False
    secret: str = ""
    asked: list[Request] = field(default_factory=list)

    def open(self, tier: str = "standard", signers: tuple[str, ...] = ("builder1",), days: int = 7) -> int:
        """Make a key and log it; returns the entry's index."""
        sequence = len(self.kinds) + 1
        epoch = Epoch(tier, NOW, NOW + timedelta(days=days), self.log.origin, SERVICE, sequence)
        return self.append(sign(create_key(self.folder, epoch), [authority.key(name) for name in signers]))

    def append(self, entry: bytes, kind: str = "issuer-key") -> int:
        index = len(self.log.entries)
        self.log.append(entry)
        self.log.close()
        self.kinds[index] = kind
        return index

    @property
    def shop(self) -> FlaskClient:
        accounts = load_accounts(self.folder)
        return create_app(
            load_keys(self.folder), accounts, Ledger(self.folder / LEDGER), lambda: NOW
        ).test_client()

    def send(self, request: Request) -> Reply:
        self.asked.append(request)
        if request.url.startswith(ISSUER):
            path = request.url.removeprefix(ISSUER)
            found = self.shop.open(
                path, method=request.method, data=request.body, headers=dict(request.headers)
            )
            return Reply(found.status_code, {}, found.data)
        if self.down:
            raise CannotTell("no answer from the log")
        path = request.url.removeprefix(LOG)
        if path.startswith("/api/v1/search"):
            rows = [
                {"index": index, "kind": kind}
                for index, kind in self.kinds.items()
                if index not in self.hidden
            ]
            return Reply(200, {}, json.dumps({"results": rows}).encode())
        index = int(path.rpartition("/")[2])
        return Reply(200, {}, self.log.proof(index) if "/proofs/" in path else self.log.entries[index])

    @property
    def policy(self) -> Policy:
        return Policy.parse(policy_bytes({**policy_document(), "genesis": self.log.genesis, "issuer": RULES}))

    @property
    def client(self) -> LogClient:
        return LogClient(self, LOG)  # type: ignore[arg-type]

    def purse(self, **changes: object) -> Purse:
        values = {"url": ISSUER, "secret": self.secret, "batch": 2, **changes}
        return Purse(self, TokenSource(**values), self.client, self.policy)  # type: ignore[arg-type]

    def valid(self) -> list[IssuerKey]:
        return list(issuer_keys(self.client, self.policy, NOW))

    def gate(self, clock: SteppedClock) -> TokenGate:
        rules = self.policy.issuer
        assert rules is not None
        return TokenGate(rules, lambda: issuer_keys(self.client, self.policy, clock.now()), clock)


@pytest.fixture
def street(tmp_path: Path) -> Street:
    found = Street(tmp_path)
    found.open()
    found.secret = create_account(tmp_path, "standard", 100)
    return found


def keyset(seconds: int = 0) -> LiveKeyset:
    return LiveKeyset.born("chat", "instance", int(NOW.timestamp()) + seconds)


def now() -> datetime:
    return NOW


def changed(street: Street, change: Mapping[str, object], signers: tuple[str, ...] = ("builder1",)) -> bytes:
    """The statement of the street's first key with some members otherwise, signed."""
    payload = street.log.entries[min(street.kinds)]
    document = parse_canonical(Envelope.parse(payload).payload, 65_535)
    assert isinstance(document, dict)
    return sign(
        statement_payload("issuer-key", {**document["predicate"], **change}),
        [authority.key(n) for n in signers],
    )


def test_a_logged_key_is_found_and_verified(street: Street) -> None:
    (key,) = street.valid()
    assert (key.tier, key.public, key.not_after) == (
        "standard", load_keys(street.folder)[0].public, NOW + timedelta(days=7),
    )  # fmt: skip


def test_the_newest_of_two_keys_comes_first_and_a_third_is_refused(street: Street) -> None:
    second = street.open()
    assert [key.index for key in street.valid()] == [second, min(street.kinds)]
    street.open()
    with pytest.raises(Refused, match="3 keys of the tier standard"):
        street.valid()


def test_keys_of_other_tiers_and_other_times_do_not_count_among_those(street: Street) -> None:
    for tier in ("gold", "silver"):
        street.open(tier)
    assert {key.tier for key in street.valid()} == {"standard", "gold", "silver"}
    assert issuer_keys(street.client, street.policy, NOW + timedelta(days=7)) == []
    assert issuer_keys(street.client, street.policy, NOW - timedelta(seconds=1)) == []


@pytest.mark.parametrize(
    ("change", "signers", "error"),
    [
        ({}, ("builder3",), Rejected),
        ({}, ("owner1",), Rejected),
        ({"service": "example.org/other"}, ("builder1",), Rejected),
        ({"log": "log.example.com/simulation"}, ("builder1",), Rejected),
        ({"data": {}}, ("builder1",), Malformed),
        ({"items": [{"name": "token-key", "sha256": "06" * 32}]}, ("builder1",), Malformed),
    ],
)
def test_a_statement_that_the_policy_does_not_name_makes_no_key(
    street: Street, change: dict[str, object], signers: tuple[str, ...], error: type[QuotaryError]
) -> None:
    index = street.append(changed(street, {"sequence": 9, **change}, signers))
    with pytest.raises(error):
        read_issuer_key(street.log.entries[index], street.log.proof(index), street.policy)


@pytest.mark.parametrize(
    "change",
    [{"tier": "Standard!"}, {"not_after": "2026-11-21T12:00:00Z"}, {"not_after": "2026-11-30T12:00:00Z"},
     {"key": "AAAA"}, {"more": "x"}],
)  # fmt: skip
def test_a_key_that_is_not_whole_or_lives_too_long_is_malformed(
    street: Street, change: dict[str, object]
) -> None:
    entry = street.log.entries[min(street.kinds)]
    statement = parse_canonical(Envelope.parse(entry).payload, 65_535)
    assert isinstance(statement, dict)
    data = {**statement["predicate"]["data"], **change}
    index = street.append(changed(street, {"sequence": 9, "data": data}))
    with pytest.raises(Malformed):
        read_issuer_key(street.log.entries[index], street.log.proof(index), street.policy)


def test_a_key_that_is_not_in_the_log_does_not_count(street: Street) -> None:
    index = min(street.kinds)
    other = changed(street, {"sequence": 7})
    with pytest.raises(QuotaryError):
        read_issuer_key(other, street.log.proof(index), street.policy)
    elsewhere = FakeLog(origin="log.example.org/elsewhere/simulation")
    elsewhere.append(other)
    elsewhere.close()
    with pytest.raises(QuotaryError):
        read_issuer_key(other, elsewhere.proof(1), street.policy)


def test_another_kind_of_notice_is_no_key(street: Street) -> None:
    entry = authority.Authority().notice("artefact", service=SERVICE)
    index = street.append(entry)
    with pytest.raises(Rejected, match="a artefact"):
        read_issuer_key(entry, street.log.proof(index), street.policy)


def test_as_many_signers_are_needed_as_the_policy_says(street: Street) -> None:
    rules = {**RULES, "signers": {"keys": authority.keys("builder1", "builder2"), "threshold": 2}}
    policy = Policy.parse(policy_bytes({**policy_document(), "genesis": street.log.genesis, "issuer": rules}))
    index = min(street.kinds)
    with pytest.raises(Rejected, match="1 signatures by its signers"):
        read_issuer_key(street.log.entries[index], street.log.proof(index), policy)
    both = street.open(signers=("builder1", "builder2"))
    assert read_issuer_key(street.log.entries[both], street.log.proof(both), policy).index == both


def test_a_policy_without_an_issuer_knows_no_keys(street: Street) -> None:
    policy = Policy.parse(policy_bytes({**policy_document(), "genesis": street.log.genesis}))
    with pytest.raises(Refused, match="a policy without one"):
        issuer_keys(street.client, policy, NOW)


def test_a_purse_fetches_several_and_gives_each_once(street: Street) -> None:
    purse = street.purse(batch=3)
    found = [purse.token(KEYSET, now) for _ in range(4)]
    assert len({token.nonce for token in found}) == 4
    assert len([request for request in street.asked if request.url.startswith(ISSUER)]) == 6
    rules = street.policy.issuer
    assert rules is not None
    for token in found:
        token.verify(street.valid()[0].public, challenge(rules, KEYSET))


def test_tokens_of_one_machine_are_not_taken_to_another(street: Street) -> None:
    purse = street.purse()
    first = purse.token(KEYSET, now)
    second = purse.token(b"L" * 32, now)
    assert first.challenge_digest != second.challenge_digest


def test_the_issuer_is_shown_the_account_and_never_the_machine(street: Street) -> None:
    token = street.purse(batch=1).token(KEYSET, now)
    (sent,) = [request for request in street.asked if request.url.startswith(ISSUER)]
    told = (sent.body or b"") + repr(dict(sent.headers)).encode()
    for secret in (KEYSET, KEYSET.hex().encode(), token.nonce, token.challenge_digest):
        assert secret not in told


def test_a_purse_says_why_it_has_no_token(street: Street) -> None:
    with pytest.raises(NotAuthorised):
        street.purse(secret="wrong").token(KEYSET, now)
    with pytest.raises(CannotTell, match="tier gold"):
        street.purse(tier="gold").token(KEYSET, now)
    street.hidden = set(street.kinds)
    with pytest.raises(CannotTell, match="no valid key"):
        street.purse().token(KEYSET, now)


def test_an_issuer_whose_key_is_not_the_logged_one_gives_nothing(street: Street) -> None:
    other = Street(street.folder / "other")
    (street.folder / "other").mkdir()
    other.open()
    path = next((street.folder / "keys").iterdir())
    path.write_bytes(next((other.folder / "keys").iterdir()).read_bytes())
    with pytest.raises((CannotTell, Rejected)):
        street.purse().token(KEYSET, now)


def test_a_token_is_taken_once(street: Street) -> None:
    live, gate = keyset(), street.gate(SteppedClock())
    token = street.purse().token(live.digest, now)
    gate.pay(token.header().encode(), live)
    with pytest.raises(TokenRefused, match="spent before") as refused:
        gate.pay(token.header().encode(), live)
    assert (refused.value.status, refused.value.code) == (401, "token_spent")


@pytest.mark.parametrize(
    ("credential", "code"),
    [(b"", "token_required"), (b"sk-secret", "token_refused"), (b"PrivateToken token=AAAA", "token_refused")],
)
def test_who_shows_no_token_is_told_for_which_challenge(street: Street, credential: bytes, code: str) -> None:
    live, clock = keyset(), SteppedClock()
    gate = street.gate(clock)
    gate.pay(street.purse().token(live.digest, now).header().encode(), live)
    with pytest.raises(TokenRefused) as refused:
        gate.pay(credential, live)
    assert refused.value.code == code
    assert refused.value.headers["www-authenticate"].startswith('PrivateToken challenge="AAI')
    assert "token-key=" in refused.value.headers["www-authenticate"]


def test_a_token_for_another_keyset_or_of_an_unlogged_key_is_refused(street: Street) -> None:
    live, gate = keyset(), street.gate(SteppedClock())
    with pytest.raises(TokenRefused, match="token challenge"):
        gate.pay(street.purse().token(KEYSET, now).header().encode(), live)
    epoch = Epoch("standard", NOW, NOW + timedelta(days=1), street.log.origin, SERVICE, 5)
    payload = parse_statement(create_key(street.folder / "private", epoch))
    data = Fields(dict(payload.predicate.data), "data")  # type: ignore[union-attr,arg-type]
    key = data.base64("key")
    rules = street.policy.issuer
    assert rules is not None
    pending = request_token(key, challenge(rules, live.digest))
    signer = load_keys(street.folder / "private")[0].signer
    token = pending.finish(signer.sign(pending.request[3:]))
    with pytest.raises(TokenRefused, match="no key of the issuer"):
        gate.pay(token.header().encode(), live)


def test_a_token_ends_with_its_key(street: Street) -> None:
    clock = SteppedClock()
    gate, live = street.gate(clock), keyset(7 * 86_400)
    token = street.purse().token(live.digest, now)
    clock.seconds = 7 * 86_400
    with pytest.raises(TokenRefused, match="no key of the issuer"):
        gate.pay(token.header().encode(), live)


def test_a_new_key_is_looked_for_but_not_at_every_wrong_token(street: Street) -> None:
    clock = SteppedClock()
    gate, live = street.gate(clock), keyset()
    gate.pay(street.purse().token(live.digest, now).header().encode(), live)
    index = street.open("standard")
    token = street.purse().token(live.digest, now)
    assert (
        token.key_id == read_issuer_key(street.log.entries[index], street.log.proof(index), street.policy).id
    )
    looks = len(street.asked)
    with pytest.raises(TokenRefused):
        gate.pay(token.header().encode(), live)
    assert len(street.asked) == looks
    clock.seconds = LOOK_SECONDS + 1
    gate.pay(token.header().encode(), live)


def test_while_the_log_is_out_of_reach_known_keys_go_on(street: Street) -> None:
    clock = SteppedClock()
    gate, live = street.gate(clock), keyset()
    purse = street.purse(batch=3)
    gate.pay(purse.token(live.digest, now).header().encode(), live)
    street.down, clock.seconds = True, MAX_AGE_SECONDS + 1
    gate.pay(purse.token(live.digest, now).header().encode(), live)


def test_what_was_spent_is_forgotten_with_its_keyset_and_not_before(street: Street) -> None:
    clock = SteppedClock()
    gate, old = street.gate(clock), keyset()
    token = street.purse().token(old.digest, now).header().encode()
    gate.pay(token, old)
    for seconds in range(10, 60, 10):
        clock.seconds = seconds
        other = keyset(seconds)
        gate.pay(street.purse(batch=1).token(other.digest, now).header().encode(), other)
    with pytest.raises(TokenRefused, match="spent before"):
        gate.pay(token, old)
    clock.seconds = 3600
    later = keyset(3600)
    gate.pay(street.purse(batch=1).token(later.digest, now).header().encode(), later)
    assert old.digest not in gate._spent


def test_a_full_memory_takes_no_token(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enclave.tokens.MAX_SPENT", 1)
    live, gate, purse = keyset(), street.gate(SteppedClock()), street.purse()
    gate.pay(purse.token(live.digest, now).header().encode(), live)
    with pytest.raises(APIError, match="no more tokens"):
        gate.pay(purse.token(live.digest, now).header().encode(), live)
