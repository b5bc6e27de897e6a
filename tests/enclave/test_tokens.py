"""An enclave whose answers cost a token: inside the channel, through a relay, once each."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from builder.model import MadeModel
from enclave.api import create_app
from enclave.runtime import Enclave, Terms
from enclave.tokens import TokenGate
from enclave.transformer import TransformerModel
from quotary.client.issuer import IssuerKey, challenge
from quotary.client.policy import EnclaveRules, IssuerRules, KeySet
from quotary.oblivious.blind_rsa import Signer
from quotary.oblivious.privacy_pass import Token, encode_key, issue, request_token
from tests.enclave.api_site import Site, body, check_receipt, code
from tests.enclave.machine import NOW, SERVICE, SteppedClock, ToldMachine

PRIVATE = rsa.generate_private_key(65537, 2048)
KEY = IssuerKey(7, "standard", encode_key(PRIVATE.public_key()), NOW, NOW + timedelta(days=7))
RULES = IssuerRules("issuer.example.org", "example.org/issuer", KeySet({}, 1))


@pytest.fixture
def site(model: MadeModel, loaded: TransformerModel) -> Iterator[Site]:
    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest)
    gate = TokenGate(RULES, lambda: [KEY], clock)
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, True), 600), machine, clock, gate=gate)
    enclave.start(lambda digest: loaded)
    yield Site(enclave, machine, clock, create_app(enclave).test_client())
    enclave.close()


def token(site: Site) -> Token:
    keyset = site.enclave.keys.current()
    assert keyset is not None
    pending = request_token(KEY.public, challenge(RULES, keyset.digest))
    return pending.finish(issue(Signer(PRIVATE), KEY.public, pending.request))


def test_an_answer_costs_a_token_inside_the_channel(site: Site) -> None:
    asked = body()
    head = site.head(headers={"authorization": token(site).header()})
    opener, answer = site.ask(asked, head)
    assert opener.head is not None
    assert opener.head.status == 200
    check_receipt(site, opener, asked, answer)
    again, refused = site.ask(asked, site.head(headers={"authorization": token_again(head.headers)}))
    assert again.head is not None
    assert (again.head.status, code(refused)) == (401, "token_spent")


def token_again(headers: object) -> str:
    assert isinstance(headers, dict)
    return str(headers["authorization"])


def test_without_a_token_the_challenge_is_told_and_nothing_is_answered(site: Site) -> None:
    opener, answer = site.ask(body())
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (401, "token_required")
    assert opener.head.headers["www-authenticate"].startswith("PrivateToken challenge=")


def test_the_plain_door_costs_a_token_too(site: Site) -> None:
    assert site.http.post("/v1/chat/completions", data=body()).status_code == 401
    paid = {"Authorization": token(site).header()}
    assert site.http.post("/v1/chat/completions", data=body(), headers=paid).status_code == 200


def test_a_request_that_is_wrong_or_cannot_be_served_costs_nothing(site: Site) -> None:
    paid = {"authorization": token(site).header()}
    opener, answer = site.ask(b"{", site.head(headers=paid))
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (400, "invalid_json")
    opener, answer = site.ask(body(), site.head(headers=paid, min_log_size=11))
    assert opener.head is not None
    assert opener.head.status == 412
    opener, _ = site.ask(body(), site.head(headers=paid))
    assert opener.head is not None
    assert opener.head.status == 200


def test_what_is_no_answer_costs_no_token(site: Site) -> None:
    opener, _ = site.ask(b"", site.head("GET", "/v1/models"))
    assert opener.head is not None
    assert opener.head.status == 200
