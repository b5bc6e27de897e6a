"""Capsules at a real enclave's door: sealed requests and bare ones inside, replays, other keys, no keys."""

import json
from collections.abc import Iterator

import pytest
from werkzeug.test import TestResponse

from builder.model import MadeModel
from enclave.api import GATEWAY_KEYS, GATEWAY_PATH, SEALED, create_app
from enclave.gateway import MAX_CAPSULES, Gateway
from enclave.keyset import ROTATE_SECONDS
from enclave.runtime import Enclave, Terms
from enclave.transformer import TransformerModel
from quotary.client.oblivious import gateway_key
from quotary.client.policy import EnclaveRules
from quotary.client.sealed import MEDIA_TYPE
from quotary.errors import Refused
from quotary.oblivious import ohttp
from quotary.oblivious.binary_http import Request, ResponseReader
from quotary.oblivious.ohttp import KeyConfig, parse_keys, seal, seal_chunked
from quotary.statements.keyset import Keyset
from tests.enclave.api_site import Site, body, check_receipt, code
from tests.enclave.machine import SERVICE, SteppedClock, ToldMachine


@pytest.fixture
def site(model: MadeModel, loaded: TransformerModel) -> Iterator[Site]:
    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest)
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, False, oblivious=True), 600), machine, clock)
    enclave.start(lambda digest: loaded)
    yield Site(enclave, machine, clock, create_app(enclave).test_client())
    enclave.close()


def attested(site: Site) -> KeyConfig:
    keyset = site.enclave.keys.current()
    assert keyset is not None
    return gateway_key(Keyset.parse(keyset.document))


def post(site: Site, wire: bytes, media_type: str = ohttp.CHUNKED_REQUEST_TYPE) -> TestResponse:
    return site.http.post(GATEWAY_PATH, data=wire, content_type=media_type)


def ask(site: Site, request: Request) -> tuple[ResponseReader, bytes]:
    wire, answer = seal_chunked(attested(site), request.encode())
    reply = post(site, wire)
    assert (reply.status_code, reply.mimetype) == (200, ohttp.CHUNKED_RESPONSE_TYPE)
    reader = ResponseReader()
    content = reader.feed(answer.feed(reply.data)) + reader.feed(answer.close()) + reader.close()
    return reader, content


def test_a_sealed_request_in_a_capsule_is_answered_with_a_receipt(site: Site) -> None:
    asked = body()
    wire, opener = site.seal(asked)
    reader, content = ask(site, Request("POST", "https", "", SEALED, (("content-type", MEDIA_TYPE),), wire))
    assert reader.head is not None
    assert (reader.head.status, dict(reader.head.fields)["content-type"]) == (200, MEDIA_TYPE)
    answer = opener.feed(content)
    opener.close()
    check_receipt(site, opener, asked, answer)


@pytest.mark.parametrize("stream", [False, True])
def test_a_bare_request_in_a_capsule_is_answered_because_its_key_is_attested(
    site: Site, stream: bool
) -> None:
    reader, content = ask(site, Request("POST", "https", "", "/v1/chat/completions", (), body(stream=stream)))
    assert reader.head is not None
    assert reader.head.status == 200
    assert (b"data: [DONE]" in content) is stream


def test_a_whole_capsule_is_answered_whole(site: Site) -> None:
    wire, answer = seal(attested(site), Request("GET", "https", "", "/v1/models").encode())
    reply = post(site, wire, ohttp.REQUEST_TYPE)
    assert (reply.status_code, reply.mimetype) == (200, ohttp.RESPONSE_TYPE)
    reader = ResponseReader()
    content = reader.feed(answer.open(reply.data)) + reader.close()
    assert json.loads(content)["object"] == "list"


def test_the_keys_that_are_shown_are_the_attested_ones(site: Site) -> None:
    shown = site.http.get(GATEWAY_KEYS)
    assert shown.mimetype == ohttp.KEYS_TYPE
    assert parse_keys(shown.data) == (attested(site),)


@pytest.mark.parametrize(
    ("request_of", "status", "found"),
    [
        (Request("GET", "https", "", "/v1/secrets"), 404, "not_found"),
        (Request("POST", "https", "", "/v1/chat/completions", (), b"{"), 400, "invalid_json"),
        (Request("POST", "https", "", SEALED, (("content-type", MEDIA_TYPE),), b"x"), 400, "not_opened"),
        (Request("POST", "https", "", SEALED, (), b"x"), 404, "not_found"),
        (
            Request("POST", "https", "", SEALED, (("content-type", MEDIA_TYPE),) * 2, b"x"), 404, "not_found",
        ),
    ],
)  # fmt: skip
def test_what_goes_wrong_inside_is_told_inside(
    site: Site, request_of: Request, status: int, found: str
) -> None:
    reader, content = ask(site, request_of)
    assert reader.head is not None
    assert (reader.head.status, code(content)) == (status, found)


def test_a_capsule_opens_once(site: Site) -> None:
    wire, _ = seal_chunked(attested(site), Request("GET", "https", "", "/v1/models").encode())
    assert post(site, wire).status_code == 200
    again = post(site, wire)
    assert (again.status_code, code(again.data)) == (409, "replayed")


def test_a_changed_capsule_neither_opens_nor_spends_the_real_one(site: Site) -> None:
    wire, _ = seal_chunked(attested(site), Request("GET", "https", "", "/v1/models").encode())
    assert post(site, wire[:-1] + bytes([wire[-1] ^ 1])).status_code == 400
    assert post(site, wire).status_code == 200


def test_a_gateway_whose_memory_is_full_opens_no_more() -> None:
    gateway = Gateway()
    gateway._opened = {number.to_bytes(16, "big") for number in range(MAX_CAPSULES)}
    with pytest.raises(Refused, match="full memory"):
        gateway.open(seal(gateway.config, b"")[0], ohttp.REQUEST_TYPE)


@pytest.mark.parametrize("media_type", ["application/json", ohttp.RESPONSE_TYPE, MEDIA_TYPE])
def test_a_capsule_of_another_type_is_refused(site: Site, media_type: str) -> None:
    wire, _ = seal(attested(site), Request("GET", "https", "", "/v1/models").encode())
    assert post(site, wire, media_type).status_code == 400


def test_a_capsule_for_another_key_says_that_the_keys_changed(site: Site) -> None:
    other = Gateway()
    while other.public[0] == attested(site).public[0]:
        other = Gateway()
    reply = post(site, seal(other.config, b"")[0], ohttp.REQUEST_TYPE)
    assert (reply.status_code, code(reply.data)) == (422, "keyset_changed")
    assert post(site, b"").status_code == 411


def test_the_old_gateway_key_opens_until_its_keyset_ends(site: Site) -> None:
    old = attested(site)
    site.clock.seconds = ROTATE_SECONDS
    site.enclave.poll()
    assert attested(site) != old
    models = Request("GET", "https", "", "/v1/models").encode()
    assert post(site, seal(old, models)[0], ohttp.REQUEST_TYPE).status_code == 200
    assert post(site, seal(attested(site), models)[0], ohttp.REQUEST_TYPE).status_code == 200
    site.clock.seconds = 3600
    reply = post(site, seal(old, models)[0], ohttp.REQUEST_TYPE)
    assert reply.status_code in (400, 422)


def test_an_enclave_that_refuses_opens_nothing(site: Site) -> None:
    config = attested(site)
    site.enclave.refuse("revoked", "a reason")
    reply = post(site, seal(config, b"")[0], ohttp.REQUEST_TYPE)
    assert (reply.status_code, code(reply.data)) == (503, "revoked")


def test_an_enclave_whose_policy_does_not_offer_it_has_no_gateway(
    model: MadeModel, loaded: TransformerModel
) -> None:
    clock = SteppedClock()
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, False), 600), ToldMachine(clock, model.digest), clock)
    enclave.start(lambda digest: loaded)
    http = create_app(enclave).test_client()
    assert http.get(GATEWAY_KEYS).status_code == 404
    reply = http.post(GATEWAY_PATH, data=seal(Gateway().config, b"")[0], content_type=ohttp.REQUEST_TYPE)
    assert reply.status_code == 422
    keyset = enclave.keys.current()
    assert keyset is not None
    assert Keyset.parse(keyset.document).of_role("gateway") == ()
    enclave.close()
