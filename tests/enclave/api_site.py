"""A running enclave in this process, what a client sends it, and what an answer must be."""

import json
from dataclasses import dataclass

from flask.testing import FlaskClient

from builder.model import MadeModel
from enclave.api import create_app
from enclave.runtime import Enclave, Terms
from quotary.client.policy import EnclaveRules, StreamRules
from quotary.client.receipt import Exchange, Receipt, verify_exchange, verify_origin, verify_signature
from quotary.client.sealed import MEDIA_TYPE, Head, ResponseOpener, seal_request
from tests.enclave.machine import SERVICE, SteppedClock, ToldMachine

ASK = {
    "model": SERVICE,
    "messages": [{"role": "user", "content": "What is a log?"}],
    "max_tokens": 12,
    "temperature": 0,
}


@dataclass(slots=True)
class Site:
    """A running enclave and its parts."""

    enclave: Enclave
    machine: ToldMachine
    clock: SteppedClock
    http: FlaskClient

    def head(self, method: str = "POST", path: str = "/v1/chat/completions", **changes: object) -> Head:
        values: dict[str, object] = {"at": int(self.clock.now().timestamp()), "min_log_size": 10}
        return Head.new(method, path, **(values | changes))  # type: ignore[arg-type]

    def seal(self, body: bytes, head: Head | None = None) -> tuple[bytes, ResponseOpener]:
        keyset = self.enclave.keys.current()
        assert keyset is not None
        return seal_request(head or self.head(), body, keyset.channel.public, keyset.digest)

    def post(self, wire: bytes):  # type: ignore[no-untyped-def]
        return self.http.post("/v1/sealed", data=wire, content_type=MEDIA_TYPE)

    def ask(self, body: bytes, head: Head | None = None) -> tuple[ResponseOpener, bytes]:
        wire, opener = self.seal(body, head)
        reply = self.post(wire)
        assert reply.status_code == 200, reply.data
        answer = opener.feed(reply.data)
        opener.close()
        return opener, answer


def build(model: MadeModel, *, plaintext: bool = False, stream: StreamRules | None = None) -> Site:
    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest)
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, plaintext, stream=stream), 600), machine, clock)
    return Site(enclave, machine, clock, create_app(enclave).test_client())


def body(**changes: object) -> bytes:
    return json.dumps(ASK | changes).encode()


def code(data: bytes) -> str:
    return str(json.loads(data)["error"]["code"])


def events(stream: bytes) -> list[str]:
    assert stream.endswith(b"\n\n")
    return [event.removeprefix(b"data: ").decode() for event in stream.split(b"\n\n")[:-1]]


def check_receipt(site: Site, opener: ResponseOpener, asked: bytes, answer: bytes) -> Receipt:
    keyset = site.enclave.keys.current()
    assert keyset is not None
    assert opener.receipt is not None
    receipt = Receipt.parse(opener.receipt)
    verify_signature(receipt, {keyset.receipt_key_id: keyset.receipt.public_key().public_bytes_raw()})
    verify_origin(
        receipt, service=SERVICE, measurement=b"M" * 32, keyset=keyset.digest, weights=site.machine.weights
    )
    verify_exchange(receipt, Exchange(opener.wire_digest, asked, answer, opener.chains, 10))
    return receipt
