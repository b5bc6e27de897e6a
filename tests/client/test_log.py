"""Fetching from a log and submitting to it: what each answer means, and that an answer is held against the question."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from quotary.client.log import LogClient
from quotary.client.submit import ROUNDS, submit
from quotary.errors import CannotTell, Malformed, NotAuthorised, QuotaryError, Rejected, Unsupported
from quotary.net.transport import Reply, Request, Stream
from tests.fakes.authority import Authority, statement_id_of

ENTRY = Authority().genesis()
LEAF = hashlib.sha256(b"\x00" + ENTRY).hexdigest()


@dataclass(slots=True)
class Script:
    """Answers in the order of the script; the last one is repeated."""

    replies: list[Reply]
    seen: list[Request] = field(default_factory=list)

    def send(self, request: Request) -> Reply:
        self.seen.append(request)
        return self.replies[min(len(self.seen), len(self.replies)) - 1]

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        raise NotImplementedError
        yield


def answer(status: int, **members: object) -> Reply:
    return Reply(status, {}, json.dumps(members).encode())


def log(*replies: Reply) -> LogClient:
    return LogClient(Script(list(replies)), "http://127.0.0.1:1/")


def test_each_kind_of_thing_has_its_address() -> None:
    script = Script([Reply(200, {}, b"{}")])
    client = LogClient(script, "http://127.0.0.1:1/")
    client.checkpoint()
    client.bundle("example.org/chat", bytes(32))
    client.entry(4)
    client.entry_by_hash(bytes(32))
    client.proof(4)
    client.proof(bytes(32))
    client.service("example.org/chat")
    client.description()
    client.search("a b")
    zeros = "00" * 32
    assert [request.url.removeprefix("http://127.0.0.1:1") for request in script.seen] == [
        "/checkpoint",
        f"/api/v1/bundles/example.org/chat/{zeros}",
        "/api/v1/entries/4",
        f"/api/v1/entries/by-hash/{zeros}",
        "/api/v1/proofs/4",
        f"/api/v1/proofs/{zeros}",
        "/api/v1/services/example.org/chat",
        "/api/v1/log",
        "/api/v1/search?q=a+b",
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Malformed),
        (403, NotAuthorised),
        (404, CannotTell),
        (413, Malformed),
        (415, Unsupported),
        (429, CannotTell),
        (500, CannotTell),
    ],
)
def test_a_problem_is_the_error_that_it_means_here(status: int, kind: type[QuotaryError]) -> None:
    with pytest.raises(kind, match=f"answered {status}: a title; a detail"):
        log(answer(status, title="a title", detail="a detail")).checkpoint()


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"[" * 100_000])
def test_a_problem_without_reason_says_so(body: bytes) -> None:
    with pytest.raises(CannotTell, match="no reason given"):
        log(Reply(500, {}, body)).checkpoint()
    with pytest.raises(Malformed):
        log(Reply(200, {}, body)).description()


def test_text_from_the_network_cannot_drive_a_terminal() -> None:
    with pytest.raises(CannotTell) as raised:
        log(answer(500, title="\x1b[2Jgone\n\u202e")).checkpoint()
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("numbers", [None, {}, {"release": "1"}, {"release": True}, {"release": 0}])
def test_a_log_that_names_no_number_is_malformed(numbers: object) -> None:
    with pytest.raises(Malformed, match="which sequence number"):
        log(answer(200, next_sequence=numbers)).next_sequence("chat", "release")
    assert log(answer(200, next_sequence={"release": 7})).next_sequence("chat", "release") == 7


def published(index: int) -> Reply:
    return answer(200, leaf_hash=LEAF, statement_id=statement_id_of(ENTRY), index=index, published=True)


PROMISED = answer(202, leaf_hash=LEAF, statement_id=statement_id_of(ENTRY), promise="a note")


def test_a_promise_is_an_answer_where_nobody_waits() -> None:
    found = submit(log(PROMISED), ENTRY)
    assert (found.index, found.promise, found.leaf_hash.hex()) == (None, "a note", LEAF)


def test_waiting_asks_again_until_the_entry_has_a_place() -> None:
    ticks: list[int] = []
    found = submit(log(PROMISED, PROMISED, published(4)), ENTRY, wait=True, tick=lambda: ticks.append(1))
    assert found.index == 4
    assert len(ticks) == 2


def test_waiting_ends() -> None:
    script = Script([PROMISED])
    with pytest.raises(CannotTell, match="has promised to publish") as raised:
        submit(LogClient(script, "http://127.0.0.1:1"), ENTRY, wait=True)
    assert len(script.seen) == 1 + ROUNDS
    assert raised.value.next_command is not None


def test_an_answer_about_another_entry_is_rejected() -> None:
    for changed in ({"leaf_hash": "00" * 32}, {"statement_id": "sha256:" + "00" * 32}, {"leaf_hash": None}):
        members = {"leaf_hash": LEAF, "statement_id": statement_id_of(ENTRY), "index": 4, **changed}
        with pytest.raises(Rejected, match="log's answer"):
            submit(log(answer(200, **members)), ENTRY)


def test_a_place_without_publication_is_none() -> None:
    members = {"leaf_hash": LEAF, "statement_id": statement_id_of(ENTRY), "index": 4}
    assert submit(log(answer(202, **members)), ENTRY).index is None


def test_an_entry_that_is_none_is_not_sent() -> None:
    script = Script([PROMISED])
    with pytest.raises(Malformed):
        submit(LogClient(script, "http://127.0.0.1:1"), b"{}")
    assert script.seen == []
