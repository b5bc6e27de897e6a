"""The client for asyncio: the same requests and the same checks, each exchange in a thread of its own.

    from quotary import AsyncClient, Client

    client = AsyncClient(Client("https://chat.example.org", policy="policy.json"))
    answer = await client.chat("What is in the log?")

There is no second copy of a check: everything that decides is ``Client``, and its connections are those of
``quotary.net`` (decision 0001). An exchange that is cancelled is closed as soon as what it waits for has
come, or the connection's own time is up; nobody waits for that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

from quotary.client.answers import Answer, Attested, Reply
from quotary.client.files import EvidenceFile
from quotary.client.receipt import Receipt
from quotary.client.session import Client
from quotary.client.verdict import Trail, Verdict

T = TypeVar("T")


class AsyncReply:
    """An answer that arrives through the channel; the properties are as of ``session.Reply``."""

    def __init__(self, reply: Reply, lane: ThreadPoolExecutor) -> None:
        self._reply, self._lane = reply, lane

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._reply.headers

    @property
    def verdict(self) -> Verdict:
        return self._reply.verdict

    @property
    def receipt(self) -> Receipt | None:
        """The verified receipt, once ``chunks`` has ended."""
        return self._reply.receipt

    @property
    def file(self) -> EvidenceFile | None:
        """What is worth keeping, once ``chunks`` has ended."""
        return self._reply.file

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body; iterating to the end verifies the authenticated end and the receipt."""
        while (chunk := await _run(self._lane, partial(next, self._reply.chunks, None))) is not None:
            yield chunk


class AsyncClient:
    """A verifying client for asyncio, around a ``Client``."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def verify(self, trail: Trail | None = None) -> Attested:
        """Ask the machine for evidence over a new nonce and judge it, or raise what speaks against it."""
        with _lane() as lane:
            return await _run(lane, partial(self.client.verify, trail))

    async def chat(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Answer:
        """Send a prompt (a text, or messages) and return the whole answer with its verified receipt."""
        ask = partial(self.client.chat, prompt, model=model, max_tokens=max_tokens, temperature=temperature)
        with _lane() as lane:
            return await _run(lane, ask)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncReply]:
        """Send a request through the sealed channel of a verified machine; its answer comes as it arrives."""
        with _lane() as lane:
            exchange = self.client.open(method, path, body, headers)
            try:
                yield AsyncReply(await _run(lane, exchange.__enter__), lane)
            finally:
                # In the lane, so after whatever runs there: a connection is not closed under its reader.
                lane.submit(exchange.__exit__, None, None, None)


@contextmanager
def _lane() -> Iterator[ThreadPoolExecutor]:
    """One thread that does one exchange's work in order, and ends with it."""
    lane = ThreadPoolExecutor(1, thread_name_prefix="quotary-exchange")
    try:
        yield lane
    finally:
        lane.shutdown(wait=False)


async def _run(lane: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(lane, work)
