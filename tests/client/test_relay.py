"""Somebody stands between client and enclave, holds the enclave's TLS key, and relays, replays, swaps and lies."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from quotary import Client
from quotary.attestation.document import AttestationDocument
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.sealed import PrivateKey, ResponseHead, ResponseSealer, open_request
from quotary.errors import CannotTell, Malformed, NotInLog, QuotaryError, Rejected
from quotary.net.transport import Reply, Request, Stream
from quotary.statements.keyset import CHANNEL, RECEIPT, Keyset, KeysetKey
from tests.fakes.attempt import Attempt
from tests.fakes.enclave import FakeEnclave
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World, keyset

PROMPT, CREDENTIAL = "the patient in bed seven", "Bearer of-this-client"


@dataclass(slots=True)
class Between:
    """A transport that passes everything on, keeps all of it, and may change what it likes.

    document: changes the attestation document on its way; answer: replaces the sealed answer
    """

    enclave: FakeEnclave
    document: Callable[[bytes], bytes] = lambda data: data
    answer: Callable[[bytes, bytes], bytes] = lambda request, answer: answer
    read: list[bytes] = field(default_factory=list)

    def send(self, request: Request) -> Reply:
        self.read.append(repr((request.url, dict(request.headers))).encode())
        reply = self.enclave.send(request)
        body = self.document(reply.body) if "/v1/attestation" in request.url else reply.body
        self.read.append(body)
        return replace(reply, body=body)

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        assert request.body is not None
        self.read += [repr((request.url, dict(request.headers))).encode(), request.body]
        with self.enclave.open(request) as stream:
            body = self.answer(request.body, b"".join(stream.chunks))
            self.read.append(body)
            yield Stream(stream.status, stream.headers, iter([body]))

    @property
    def posted(self) -> list[Request]:
        return [request for request in self.enclave.seen if request.method == "POST"]


@pytest.fixture
def between(world: World) -> Between:
    return Between(FakeEnclave(world))


def client_of(between: Between) -> Client:
    world = between.enclave.world
    policy = Policy.parse(policy_bytes(world.policy()))
    return Client(
        "http://127.0.0.1:1",
        policy,
        log_url="http://127.0.0.1:2",
        transport=between,
        clock=FixedClock(world.now),
    )


def ask(client: Client) -> bytes:
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": PROMPT}]}).encode()
    with client.open("POST", "/v1/chat/completions", body, {"authorization": CREDENTIAL}) as reply:
        return b"".join(reply.chunks)


def test_c3_a_relay_that_ends_tls_reads_neither_prompt_nor_answer_nor_credential(between: Between) -> None:
    answer = ask(client_of(between))
    assert PROMPT.encode() in between.enclave.prompts[0]
    assert b"a log" in answer
    seen = b"".join(between.read)
    for secret in (PROMPT.encode(), CREDENTIAL.encode(), b"a log", b"chat/completions"):
        assert secret not in seen
    # What it kept opens for nobody else, itself included, with the right keyset and the right key's name.
    (posted,) = between.posted
    mine, digest = (
        PrivateKey(),
        keyset(between.enclave.world.channel.public, at=between.enclave.world.now).digest,
    )
    with pytest.raises(QuotaryError):
        open_request(posted.body or b"", mine, digest)


def test_c3_a_relay_cannot_put_its_own_key_into_the_quoted_keyset(between: Between) -> None:
    theirs = PrivateKey()

    def swap(data: bytes) -> bytes:
        other = keyset(theirs.public, at=between.enclave.world.now).encode()
        return replace(AttestationDocument.parse(data), keyset=other).encode()

    between.document = swap
    with pytest.raises(Rejected, match="binding"):
        ask(client_of(between))
    assert between.posted == []


def test_c3_a_relay_cannot_answer_in_the_enclaves_place(between: Between) -> None:
    """It may show a whole answer that it made, or one that the enclave gave to somebody else."""
    kept: list[bytes] = []

    def keep(request: bytes, answer: bytes) -> bytes:
        kept.append(answer)
        return answer

    between.answer = keep
    ask(client_of(between))
    between.answer = lambda request, answer: kept[0]
    with pytest.raises(Rejected, match="sealed frame"):
        ask(client_of(between))

    def forge(request: bytes, answer: bytes) -> bytes:
        world = between.enclave.world
        opened = open_request(request, world.channel, keyset(world.channel.public, at=world.now).digest)
        # All that a relay does not have is the secret inside the head.
        guessed = replace(opened, head=replace(opened.head, response_secret=bytes(32)))
        sealer = ResponseSealer(guessed, bytes(32))
        return sealer.start(ResponseHead(200, {})) + sealer.data(b"a lie") + sealer.end()

    between.answer = forge
    with pytest.raises(Rejected, match="sealed frame"):
        ask(client_of(between))


def test_c4_a_replayed_attestation_is_refused_before_a_prompt_is_sealed(between: Between) -> None:
    kept: list[bytes] = []

    def replay(data: bytes) -> bytes:
        kept.append(data)
        return kept[0]

    between.document = replay
    client = client_of(between)
    client.verify()
    with pytest.raises(Rejected, match="nonce"):
        client.verify()
    unchallenged = between.enclave.world.document(nonce=None).encode()
    between.document = lambda data: unchallenged
    with pytest.raises(Rejected, match="nonce"):
        ask(client_of(between))
    assert between.posted == []


def judge_with(attempt: Attempt, shown: Keyset) -> None:
    attempt.change_document(keyset=shown.encode())
    attempt.judge()


def test_c9_no_byte_of_any_published_key_can_be_changed(world: World) -> None:
    """Each changed keyset is a keyset still; only the hardware's signature says that it is not this one."""
    attempt = Attempt.of(world)
    attempt.judge()
    shown = Keyset.parse(attempt.document.keyset)
    refused = 0
    for number, key in enumerate(shown.keys):
        for at in range(0, len(key.public), 5):
            flipped = bytearray(key.public)
            flipped[at] ^= 1 << at % 8
            keys = [
                *shown.keys[:number],
                KeysetKey(key.id, key.role, key.alg, bytes(flipped)),
                *shown.keys[number + 1 :],
            ]
            # A signing key may become one of small order, which is refused where it is read or written.
            with pytest.raises((Rejected, Malformed), match=r"binding|degenerate"):
                judge_with(attempt, replace(shown, keys=tuple(keys)))
            refused += 1
    assert {key.role for key in shown.keys} == {CHANNEL, RECEIPT}
    assert refused == 244 + 7


def test_c24_what_a_catalogue_says_is_never_asked_and_changes_nothing(between: Between) -> None:
    between.enclave.measured_as = "malware"
    with pytest.raises(NotInLog):
        ask(client_of(between))
    assert not any("/models" in request.url for request in between.enclave.seen)
    assert between.posted == []


def test_c26_the_outer_request_carries_no_credential(between: Between) -> None:
    ask(client_of(between))
    (posted,) = between.posted
    assert posted.headers == {"Content-Type": "application/quotary-sealed"}
    assert all(dict(request.headers) == {} for request in between.enclave.seen if request.method == "GET")


def test_c14_an_answer_that_is_cut_anywhere_is_an_error(between: Between) -> None:
    whole: list[bytes] = []

    def keep(request: bytes, answer: bytes) -> bytes:
        whole.append(answer)
        return answer

    between.answer = keep
    ask(client_of(between))
    for length in range(0, len(whole[0]), 7):
        between.answer = lambda request, answer, length=length: answer[:length]
        with pytest.raises(CannotTell, match="truncated"):
            ask(client_of(between))
