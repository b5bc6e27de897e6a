"""What doors sign about answers: digests of the exact bytes of request and response, kept for a while.

They are plain SHA-256, as the other systems want them, so a short prompt can be guessed from one. That is why
they are kept only while a door is open, handed only to who showed the same credential, and only through the
sealed channel where the answer came through it. An answer that broke off is not kept: a signature that
covered half of it would not say so (its receipt does).
"""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from enclave.answer import EVENT_STREAM, LAST_EVENT, Reply
from enclave.chat import APIError

KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the credential as it was shown (empty: none), and whether it came through the channel."""

    credential: bytes
    sealed: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """One whole answer. request, response: SHA-256 of the bytes; at: seconds since 1970 at its end."""

    request: bytes
    response: bytes
    at: int


class ExchangeBook:
    """The newest exchanges of this process, by the chat id of their answer."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)
        self._kept = kept
        self._found: OrderedDict[str, tuple[Exchange, bytes, bool]] = OrderedDict()

    def watch(self, reply: Reply, request: bytes, asker: Asker, now: Callable[[], int]) -> Reply:
        """Give the same reply, which is remembered once its last piece is on its way."""
        if reply.status != 200 or not reply.chat_id:
            return reply
        return replace(reply, body=self._watched(reply, request, asker, now))

    def find(self, chat_id: str, asker: Asker) -> Exchange:
        """Give an exchange, or raise ``APIError`` 404: unknown, or another's."""
        with self._lock:
            found = self._found.get(chat_id)
        if found is not None:
            exchange, mark, sealed = found
            mine = hmac.compare_digest(mark, self._mark(asker.credential))
            if mine and (asker.sealed or not sealed):
                return exchange
        raise APIError(404, "not_found", "no such answer is known to this credential here", param="id")

    def _watched(self, reply: Reply, request: bytes, asker: Asker, now: Callable[[], int]) -> Iterator[bytes]:
        streamed = reply.headers.get("content-type") == EVENT_STREAM
        digest = hashlib.sha256()
        for piece in reply.body if streamed else (b"".join(reply.body),):
            digest.update(piece)
            if not streamed or piece == LAST_EVENT:
                # Before the piece goes out, so that nobody can ask for it too early.
                exchange = Exchange(hashlib.sha256(request).digest(), digest.digest(), now())
                self._keep(reply.chat_id, (exchange, self._mark(asker.credential), asker.sealed))
            yield piece

    def _keep(self, chat_id: str, found: tuple[Exchange, bytes, bool]) -> None:
        with self._lock:
            self._found[chat_id] = found
            while len(self._found) > self._kept:
                self._found.popitem(last=False)

    def _mark(self, credential: bytes) -> bytes:
        return hmac.digest(self._secret, credential, "sha256")
