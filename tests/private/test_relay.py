"""A client, a relay and an enclave in this process: what each of them sees, and what a lying one achieves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from enclave.gateway import Gateway
from private import problems
from private.relay import create_app
from quotary import Client
from quotary.client.clock import FixedClock
from quotary.client.oblivious import MAX_CAPSULE, Relayed
from quotary.client.policy import Policy
from quotary.client.session import TokenSource
from quotary.errors import CannotTell, Malformed, Refused, Rejected, Usage
from quotary.net.transport import Reply, Request, Stream
from quotary.oblivious import ohttp
from tests.fakes.enclave import FakeEnclave
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World

ENCLAVE, RELAY, LOG = "http://127.0.0.1:1", "http://127.0.0.1:3/chat", "http://127.0.0.1:2"
CANARY = "canary-9d1e0c"


@dataclass
class Network:
    """Connects a client to the relay and the log, and to nothing else; notes what the relay was sent."""

    enclave: FakeEnclave
    seen: list[Request] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = create_app({"chat": ENCLAVE}, self.enclave).test_client()

    def send(self, request: Request) -> Reply:
        if request.url.startswith(LOG):
            return self.enclave.send(request)
        with self.open(request) as stream:
            return Reply(stream.status, stream.headers, b"".join(stream.chunks))

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        self.seen.append(request)
        path = request.url.removeprefix("http://127.0.0.1:3")
        assert path != request.url, f"the client went to {request.url}"
        headers = {**request.headers, **self.headers}
        found = self.http.open(path, method=request.method, data=request.body, headers=headers)
        yield Stream(found.status_code, {k.lower(): v for k, v in found.headers}, iter(found.response))  # type: ignore[arg-type]
        found.close()


@pytest.fixture
def enclave(world: World) -> FakeEnclave:
    return FakeEnclave(world, gateway=Gateway())


@pytest.fixture
def network(enclave: FakeEnclave) -> Network:
    return Network(enclave)


def client_of(network: Network) -> Client:
    world = network.enclave.world
    policy = Policy.parse(policy_bytes(world.policy()))
    clock = FixedClock(world.now)
    return Client(ENCLAVE, policy, log_url=LOG, transport=network, clock=clock, relay=RELAY)


def test_a_question_goes_through_the_relay_and_its_answer_is_verified_as_ever(network: Network) -> None:
    answer = client_of(network).chat(CANARY)
    assert answer.text == "a log"
    assert answer.verdict.checks[-1].name == "receipt"
    assert CANARY.encode() in network.enclave.prompts[0]
    assert [request.url.removeprefix(RELAY).partition("?")[0] for request in network.seen] == [
        "/attestation", "/keys", "",
    ]  # fmt: skip


def test_a_client_with_an_issuer_pays_inside_the_seal_and_not_before_the_machine_is_judged(
    network: Network,
) -> None:
    world = network.enclave.world
    policy = Policy.parse(policy_bytes(world.policy()))
    source, clock = TokenSource("http://127.0.0.1:4", "secret"), FixedClock(world.now)
    client = Client(ENCLAVE, policy, log_url=LOG, transport=network, clock=clock, relay=RELAY, issuer=source)
    with pytest.raises(Refused, match="a policy without one"):
        client.chat(CANARY)
    assert network.enclave.prompts == []
    with pytest.raises(Usage, match="tokens need a log"):
        Client(ENCLAVE, policy, transport=network, clock=clock, issuer=source)


def test_the_relay_sees_neither_question_nor_answer(network: Network) -> None:
    client_of(network).chat(CANARY)
    for request in network.seen:
        assert CANARY.encode() not in (request.body or b"")
        assert b"/v1/sealed" not in (request.body or b"")


def test_the_enclave_sees_nothing_of_the_client_but_the_capsule(network: Network) -> None:
    network.headers = {
        "Cookie": "who=me", "X-Forwarded-For": "192.0.2.7", "Authorization": "Bearer secret", "User-Agent": "mine",
        "Accept-Language": "gsw", "Via": "1.1 home",
    }  # fmt: skip
    client_of(network).chat(CANARY)
    posted = [request for request in network.enclave.seen if request.method == "POST" and request.headers]
    assert [dict(request.headers) for request in posted] == [
        {"Content-Type": ohttp.CHUNKED_REQUEST_TYPE, "Incremental": "?1"}
    ]
    others = [request for request in network.enclave.seen if request.method == "GET"]
    assert all(not request.headers for request in others)


def test_a_gateway_key_that_is_not_the_attested_one_is_refused(network: Network) -> None:
    other, enclave = Gateway(), network.enclave
    client = client_of(network)
    real = enclave.gateway
    assert real is not None
    enclave.gateway = LyingGateway(real, other)  # type: ignore[assignment]
    with pytest.raises(Refused, match="gateway key"):
        client.chat(CANARY)
    assert enclave.prompts == []


class LyingGateway:
    """Attests one key and shows another through the relay, as one who wants to tell clients apart."""

    def __init__(self, attested: Gateway, shown: Gateway) -> None:
        self.public, self.config = attested.public, shown.config


def test_a_machine_without_a_gateway_is_refused(world: World) -> None:
    network = Network(FakeEnclave(world))
    with pytest.raises(Refused, match="a keyset with 0 of them"):
        client_of(network).chat(CANARY)


def test_an_answer_that_the_relay_cuts_is_refused_wherever_it_is_cut(network: Network) -> None:
    for cut in (1, 17, 100, 1000):
        network.enclave.cut_capsule = cut
        with pytest.raises((Malformed, Rejected, CannotTell)):
            client_of(network).chat(CANARY)


def test_nothing_is_sent_through_a_relay_before_a_keyset_was_judged(network: Network) -> None:
    relayed = Relayed(network, ENCLAVE, RELAY)
    with pytest.raises(Refused, match="judged"), relayed.open(Request(f"{ENCLAVE}/v1/sealed", "POST", b"x")):
        pass
    with pytest.raises(Refused, match="GET /v1/models"):
        relayed.send(Request(f"{ENCLAVE}/v1/models"))
    assert network.seen == []


@pytest.mark.parametrize(
    ("path", "method", "media_type", "status"),
    [
        ("/other", "POST", ohttp.REQUEST_TYPE, 404),
        ("/other/keys", "GET", None, 404),
        ("/chat", "POST", "application/json", 415),
        ("/chat", "POST", None, 415),
        ("/chat", "GET", None, 405),
        ("/chat/attestation", "GET", None, 400),
        ("/chat/attestation?nonce=00", "GET", None, 400),
        (f"/chat/attestation?nonce={'00' * 32}&who=me", "GET", None, 400),
        ("/http://127.0.0.1:9/", "POST", ohttp.REQUEST_TYPE, 404),
        ("/chat/../../etc", "GET", None, 404),
    ],
)
def test_the_relay_connects_to_nothing_else(
    network: Network, path: str, method: str, media_type: str | None, status: int
) -> None:
    found = network.http.open(path, method=method, data=b"x", content_type=media_type)
    assert (found.status_code, found.mimetype) == (status, problems.MEDIA_TYPE)
    assert network.enclave.seen == []
    assert network.http.get(found.json["type"]).status_code == 200


@pytest.mark.parametrize("length", [MAX_CAPSULE + 1, MAX_CAPSULE + 2, 4 * MAX_CAPSULE])
def test_a_capsule_that_is_too_large_is_refused(network: Network, length: int) -> None:
    found = network.http.post("/chat", data=bytes(length), content_type=ohttp.REQUEST_TYPE)
    assert found.status_code == 413
    assert network.enclave.seen == []


def test_a_gateway_that_answers_something_else_gives_its_status_and_none_of_its_words(world: World) -> None:
    class Talking:
        status = 503

        @contextmanager
        def open(self, request: Request) -> Iterator[Stream]:
            yield Stream(
                self.status, {"content-type": "text/html", "set-cookie": "who=me"}, iter([b"hello you"])
            )

    for status, wanted in ((503, 503), (422, 422), (200, 502), (302, 502)):
        gateway = Talking()
        gateway.status = status
        http = create_app({"chat": ENCLAVE}, gateway).test_client()  # type: ignore[arg-type]
        found = http.post("/chat", data=b"x", content_type=ohttp.REQUEST_TYPE)
        assert (found.status_code, found.mimetype) == (wanted, problems.MEDIA_TYPE)
        assert b"hello you" not in found.data
        assert "Set-Cookie" not in found.headers


def test_a_gateway_out_of_reach_is_a_502(world: World) -> None:
    class Nowhere:
        def open(self, request: Request) -> Stream:
            raise CannotTell("no answer")

    http = create_app({"chat": ENCLAVE}, Nowhere()).test_client()  # type: ignore[arg-type]
    assert http.post("/chat", data=b"x", content_type=ohttp.REQUEST_TYPE).status_code == 502


def test_the_relay_says_nothing_of_a_request_in_its_log(
    network: Network, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    client_of(network).chat(CANARY)
    network.http.post("/chat", data=CANARY, content_type=ohttp.REQUEST_TYPE)
    said = caplog.text + "".join(capfd.readouterr())
    assert CANARY not in said
    assert "127.0.0.1" not in said
