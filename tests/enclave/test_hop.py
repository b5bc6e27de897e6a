"""A question that another enclave answers: passed on, named in the receipt, and refused where the other is not believed."""

import json
from collections.abc import Iterator, Mapping

import pytest

from builder.model import MadeModel
from enclave.api import create_app
from enclave.hop import parse_hops, ports_of_hops
from enclave.runtime import Enclave, Terms
from enclave.transformer import TransformerModel
from quotary import Client
from quotary.client.clock import FixedClock
from quotary.client.policy import EnclaveRules, Policy
from quotary.client.receipt import Receipt
from quotary.errors import Usage
from tests.enclave.api_site import Site, body, code
from tests.enclave.machine import SERVICE, SteppedClock, ToldMachine
from tests.fakes import authority
from tests.fakes.enclave import ANSWER, FakeEnclave
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World, hardware

OTHER = authority.SERVICE


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(*hardware(tmp_path_factory.mktemp("vendor"))).publish()


@pytest.fixture
def other(world: World) -> FakeEnclave:
    return FakeEnclave(world)


@pytest.fixture
def site(model: MadeModel, loaded: TransformerModel, other: FakeEnclave) -> Iterator[Site]:
    clock = SteppedClock()
    policy, at = Policy.parse(policy_bytes(other.world.policy())), FixedClock(other.world.now)
    client = Client("http://127.0.0.1:1", policy, log_url="http://127.0.0.1:2", transport=other, clock=at)
    machine = ToldMachine(clock, model.digest, others={OTHER: client})
    terms = Terms(SERVICE, EnclaveRules(30, False), 600, hops={OTHER: "https://127.0.0.1:1"})
    enclave = Enclave(terms, machine, clock)
    enclave.start(lambda digest: loaded)
    yield Site(enclave, machine, clock, create_app(enclave).test_client())
    enclave.close()


def asked(site: Site, **changes: object) -> tuple[int, Mapping[str, str], bytes, Receipt | None]:
    opener, answer = site.ask(body(model=OTHER, **changes))
    assert opener.head is not None
    receipt = None if opener.receipt is None else Receipt.parse(opener.receipt)
    return opener.head.status, opener.head.headers, answer, receipt


def test_a_question_for_another_service_is_passed_on_and_the_receipt_names_who_answered(
    site: Site, other: FakeEnclave
) -> None:
    status, headers, answer, receipt = asked(site)
    assert (status, answer) == (200, ANSWER)
    assert json.loads(other.prompts[0])["model"] == OTHER
    assert receipt is not None
    found = receipt.parameters
    assert receipt.served.complete
    assert receipt.served.receipt_id == headers["x-receipt-id"] != found["hop_receipt_id"]
    assert found["hop_service"] == OTHER
    assert found["hop_measurement"] == other.world.measurement.hex()
    assert found["hop_weights"] == other.weights.hex()
    assert found["hop_keyset"] == other.keys.digest.hex()
    kept = site.http.get(f"/v1/receipts/{found['hop_receipt_id']}").data
    assert Receipt.parse(kept).digest().hex() == found["hop_receipt"]
    assert Receipt.parse(kept).salt is None, "nobody can test a guess at the prompt against it"
    assert (receipt.commitments.tokens_in, receipt.commitments.tokens_out) == (0, 0)
    place = site.http.get(f"/v1/receipts/{found['hop_receipt_id']}/place")
    assert place.status_code == 404, "another enclave's receipt has no place among ours"


def test_a_stream_is_passed_on_as_it_comes(site: Site, other: FakeEnclave) -> None:
    other.kind = "text/event-stream; charset=utf-8"
    status, headers, answer, receipt = asked(site, stream=True)
    assert (status, answer, headers["content-type"]) == (200, ANSWER, other.kind)
    assert receipt is not None
    assert receipt.served.complete


def test_an_enclave_that_is_not_believed_is_not_asked(site: Site, other: FakeEnclave) -> None:
    other.measured_as = "malware"
    status, _, answer, receipt = asked(site)
    assert (status, code(answer), receipt) == (502, "hop_failed", None)
    assert other.prompts == []


@pytest.mark.parametrize("change", [{"cut": 1}, {"receipts": False}, {"weights": bytes(32)}, {"status": 503}])
def test_an_answer_whose_end_or_receipt_does_not_hold_is_none(
    site: Site, other: FakeEnclave, change: dict[str, object]
) -> None:
    for name, value in change.items():
        setattr(other, name, value)
    status, _, answer, receipt = asked(site)
    assert (status, code(answer), receipt) == (502, "hop_failed", None)
    assert b"a log" not in answer


def test_a_stream_that_breaks_off_ends_in_an_error_and_a_receipt_that_says_so(
    site: Site, other: FakeEnclave
) -> None:
    other.kind, other.cut = "text/event-stream; charset=utf-8", 1
    status, _, answer, receipt = asked(site, stream=True)
    assert status == 200
    assert b"hop_failed" in answer
    assert receipt is not None
    assert (receipt.served.complete, receipt.served.finish_reason) == (False, "error")
    assert "hop_receipt" not in receipt.parameters


def test_what_the_other_refuses_as_a_mistake_of_the_asker_is_passed_on(
    site: Site, other: FakeEnclave
) -> None:
    other.status = 400
    status, _, answer, receipt = asked(site)
    assert (status, answer, receipt) == (400, ANSWER, None)


def test_an_answer_is_not_followed_over_a_hop(site: Site, other: FakeEnclave) -> None:
    status, _, answer, _ = asked(site, follow_token_ids=[1], logprobs=True)
    assert (status, code(answer)) == (400, "unsupported_value")
    assert other.prompts == []


def test_a_service_without_a_hop_is_not_served(site: Site) -> None:
    opener, answer = site.ask(body(model="example.org/third"))
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (404, "model_not_found")


def test_hops_are_read_from_the_command_line() -> None:
    found = parse_hops(("example.org/a=https://a.example.org", "b=https://127.0.0.1:8443"))
    assert found == {"example.org/a": "https://a.example.org", "b": "https://127.0.0.1:8443"}
    assert ports_of_hops(found) == {443, 8443}
    for words in (("a",), ("a=http://a.example.org",), ("=https://a.example.org",), ("a=https://",)):
        with pytest.raises(Usage, match="a hop is"):
            parse_hops(words)
    with pytest.raises(Usage, match="once"):
        parse_hops(("a=https://x", "a=https://y"))
