"""What a key service's parts do not believe: answers, entries and questions that are almost right."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from enclave.keys import OneTimeEvidence
from quotary.canonical import canonical, parse_canonical
from quotary.client.key_question import Answered, Asked, Partial, Question, ask
from quotary.client.key_service import KeyService, Shown, parse_wish
from quotary.errors import Malformed, QuotaryError, Refused
from quotary.net.transport import Reply, Request
from quotary.statements.envelope import Envelope, sign
from quotary.statements.keyset import KeysetKey
from quotary.statements.schema import statement_payload
from tests.fakes.authority import SERVICE
from tests.fakes.ceremony import Stream
from tests.fakes.key_nodes import NODES, Village

QUESTION = ask(SERVICE, "disk", 1, 0, Stream("question")).question


@dataclass
class Changed:
    """A transport on which one node's answers to one path are others."""

    village: Village
    end: str
    change: Callable[[bytes], bytes]

    def send(self, request: Request) -> Reply:
        reply = self.village.send(request)
        if request.url.endswith(self.end) and reply.status == 200:
            return Reply(200, {}, self.change(reply.body))
        return reply


def asked_through(village: Village, transport: Changed, epoch: int = 0) -> tuple[str, ...]:
    """Have a key released and say who was complained about."""
    machine = village.machine()
    service = KeyService(village.urls, village.policy, SERVICE, lambda: OneTimeEvidence(machine), transport)
    return service.release("disk", epoch).complaints


def test_a_node_that_names_itself_otherwise_is_refused(village):
    def renamed(body: bytes) -> bytes:
        return canonical({**parse_canonical(body, 8192), "node": 3})

    (line,) = asked_through(village, Changed(village, "node1/kms/v1/releases", renamed))
    assert line.startswith("http://node1: sealed: found bytes that do not open")


def test_a_node_beyond_the_group_is_refused(village):
    number = NODES + 1
    folder = village.node(1)
    held = folder.held(1)
    folder.hold(replace(held, number=number))
    (line,) = asked_through(village, Changed(village, "nowhere", bytes))
    assert line == f"http://node1: answer: found one of node {number}, wanted nodes 1 to {NODES}"


def test_shares_of_another_epoch_than_the_wished_one_are_refused(village):
    village.hold(village.proposal(epoch=2))
    newer = village.node(1).held(2)

    def swapped(body: bytes) -> bytes:
        return replace(Shown.parse(body), entry=newer.entry, proof=newer.proof).encode()

    (line,) = asked_through(village, Changed(village, "node1/kms/v1/challenges", swapped), epoch=1)
    assert line.startswith("http://node1: key epoch: found the shares of epoch 2")


def test_a_keyset_with_more_than_the_one_key_is_refused(village):
    class Wider(OneTimeEvidence):
        def _keyset(self):
            found = super()._keyset()
            more = KeysetKey("more", "receipt", "ed25519", village.group.nodes[0].key)
            return replace(found, keys=(*found.keys, more))

    machine = village.machine()
    with pytest.raises(Refused, match="keyset: found 2 keys"):
        village.service(machine, Wider(machine)).key("disk")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 0},
        {"generation": -1},
        {"threshold": 6},
        {"threshold": 0},
        {"key": "00" * 32},
        {"key": "zz" * 32},
        {"shares": []},
        {"shares": [1]},
        {"group": "00"},
        {"previous": ""},
        {"dealers": 1},
        {"faults": 1},
        {"epoch": 2},
        {"more": 1},
    ],
)
def test_an_entry_about_shares_is_whole_or_malformed(village, change):
    payload = parse_canonical(Envelope.parse(village.node(1).held(1).entry).payload, 65_535)
    predicate = payload["predicate"]
    made = {**predicate, "data": {**predicate["data"], **change}}
    keys = [village.node(number).keys().signing for number in range(1, NODES + 1)]
    entry = sign(statement_payload("key-release", made), keys)
    with pytest.raises(Malformed):
        village.epoch(entry, village.publish(entry))


def test_questions_and_answers_read_back():
    asked = Asked(b"c" * 32, QUESTION, b"document")
    assert Asked.parse(asked.encode()) == asked
    answered = Answered(3, b"sealed")
    assert Answered.parse(answered.encode()) == answered
    shown = Shown(b"c" * 32, b"entry", b"proof")
    assert Shown.parse(shown.encode()) == shown
    partial = Partial(QUESTION.blinded, QUESTION.knowledge)
    assert Partial.parse(partial.encode()) == partial


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 0},
        {"generation": -1},
        {"label": "Disk"},
        {"label": "x" * 65},
        {"blinded": "00" * 32},
        {"witness": "ff" * 32},
        {"knowledge": "00" * 64},
        {"more": 1},
    ],
)
def test_a_question_is_whole_or_malformed(change):
    whole = parse_canonical(Asked(b"c" * 32, QUESTION, b"d").encode(), 1 << 20)
    question = {**whole["question"], **change}
    with pytest.raises(Malformed):
        Asked.parse(canonical({**whole, "question": question}))


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (Asked.parse, {"challenge": "00"}),
        (Answered.parse, {"node": 0, "sealed": "AAAA"}),
        (Answered.parse, {"node": 1, "sealed": "AAAA", "more": 1}),
        (Shown.parse, {"challenge": "00" * 32, "entry": "AAAA", "proof": "AAAA", "more": 1}),
        (parse_wish, {"epoch": -1}),
        (parse_wish, {"epoch": 1, "more": 1}),
    ],
)
def test_what_is_almost_a_document_is_malformed(parse, data):
    with pytest.raises(Malformed):
        parse(canonical({"v": 1, **data}))


@pytest.mark.parametrize("length", [0, 31, 95, 97])
def test_an_answer_of_another_length_is_malformed(length):
    with pytest.raises(Malformed, match=f"{length} bytes"):
        Partial.parse(bytes(length))


def test_no_truncation_of_what_travels_is_anything_but_malformed():
    data = Asked(b"c" * 32, QUESTION, b"d").encode()
    for end in range(0, len(data), 7):
        with pytest.raises(Malformed):
            Asked.parse(data[:end])
    assert isinstance(QUESTION, Question)


def test_a_service_without_addresses_has_no_keys(village):
    service = KeyService([], village.policy, SERVICE, lambda: pytest.fail("asked"), village)
    with pytest.raises(QuotaryError, match="no node with shares"):
        service.key("disk")
