"""The client for asyncio: the same checks, many at once, and what is cancelled is closed."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from quotary import AsyncClient
from quotary.errors import NotInLog, Refused
from quotary.net.transport import Request, Stream
from tests.client.test_session import client_of
from tests.fakes.enclave import ANSWER, FakeEnclave
from tests.fakes.machine import World


@pytest.fixture
def enclave(world: World) -> FakeEnclave:
    return FakeEnclave(world)


def test_a_question_is_answered_with_the_same_checks(enclave: FakeEnclave) -> None:
    asked = asyncio.run(AsyncClient(client_of(enclave)).chat("What is this?", max_tokens=5))
    plain = client_of(enclave).chat("What is this?", max_tokens=5)
    assert asked.text == plain.text
    made = [(check.name, check.outcome) for check in asked.verdict.checks]
    assert made == [(check.name, check.outcome) for check in plain.verdict.checks]


def test_what_is_refused_is_refused_here_too_and_no_prompt_leaves(enclave: FakeEnclave) -> None:
    enclave.measured_as = "malware"
    with pytest.raises(NotInLog):
        asyncio.run(AsyncClient(client_of(enclave)).chat("a secret"))
    assert enclave.prompts == []


def test_an_answer_comes_in_pieces_and_its_receipt_at_the_end(enclave: FakeEnclave) -> None:
    async def ask() -> None:
        client = AsyncClient(client_of(enclave))
        await client.verify()
        async with client.open("POST", "/v1/chat/completions", b"{}") as reply:
            assert (reply.status, reply.receipt, reply.file) == (200, None, None)
            assert b"".join([chunk async for chunk in reply.chunks()]) == ANSWER
            assert reply.receipt is not None
            assert reply.file is not None
            assert reply.verdict.checks[-1].name == "receipt"
            assert reply.headers["content-type"] == "application/json"

    asyncio.run(ask())


def test_a_bad_receipt_is_an_error_at_the_end_of_the_pieces(enclave: FakeEnclave) -> None:
    async def ask() -> None:
        async with AsyncClient(client_of(enclave)).open("POST", "/v1/chat/completions", b"{}") as reply:
            async for _ in reply.chunks():
                pass

    enclave.complete = False
    with pytest.raises(Refused, match="receipt complete"):
        asyncio.run(ask())


def test_many_ask_at_once_and_the_loop_goes_on(enclave: FakeEnclave) -> None:
    async def ask() -> list[str]:
        client = AsyncClient(client_of(enclave))
        await client.verify()
        return [answer.text for answer in await asyncio.gather(*(client.chat(str(n)) for n in range(20)))]

    assert asyncio.run(ask()) == ["a log"] * 20


class Slow(FakeEnclave):
    """Sends its first bytes, and the rest when it is told to."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.go_on, self.closed = threading.Event(), threading.Event()

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        with super().open(request) as stream:
            whole = b"".join(stream.chunks)

            def pieces() -> Iterator[bytes]:
                yield whole[:-1000]
                assert self.go_on.wait(20)
                yield whole[-1000:]

            try:
                yield Stream(stream.status, stream.headers, pieces())
            finally:
                self.closed.set()


def test_an_exchange_that_is_cancelled_is_closed_and_nobody_waits_for_it(world: World) -> None:
    enclave = Slow(world)

    async def ask() -> None:
        client = AsyncClient(client_of(enclave))
        await client.verify()
        async with asyncio.timeout(0.3), client.open("POST", "/v1/chat/completions", b"{}") as reply:
            async for _ in reply.chunks():
                pass

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    assert not enclave.closed.is_set()
    enclave.go_on.set()
    assert enclave.closed.wait(20)
