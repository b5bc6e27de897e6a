"""A question that another enclave answers (docs/formats/ratls.md, "Hops"): judged, asked through its second
door, and named in this enclave's receipt.

The other one is judged under this enclave's own measured policy and knows who asks by a key of this
enclave's keyset. This enclave computes nothing of the answer, and its receipt says so.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

from enclave.answer import Reply, Serving
from enclave.chat import APIError
from enclave.receipts import Answered, ResponseHash
from quotary.client.answers import Reply as Answer
from quotary.client.receipt import Channel, Receipt, Served
from quotary.client.session import Client
from quotary.errors import QuotaryError, Usage


class Hops:
    """Services that other enclaves answer for, each with the client that asks it."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients

    def __contains__(self, service: str) -> bool:
        return service in self._clients

    def forward(self, serving: Serving, service: str, path: str, raw: bytes, salt: bytes | None) -> Reply:
        """Ask the enclave of a service what was asked here; ``APIError`` where there is no answer."""
        held = ExitStack()
        try:
            answer = held.enter_context(self._clients[service].open("POST", path, raw))
            made = _Forwarded(serving, service, path, raw, salt, answer, held)
            return made.reply()
        except QuotaryError as error:
            held.close()
            raise _failed(service, str(error)) from error


def parse_hops(texts: tuple[str, ...]) -> Mapping[str, str]:
    """Read the words ``SERVICE=https://HOST:PORT`` of the measured command line."""
    found: dict[str, str] = {}
    for text in texts:
        service, _, url = text.partition("=")
        parts = urlsplit(url)
        if not service or parts.scheme != "https" or not parts.hostname or service in found:
            raise Usage(f"a hop is SERVICE=https://HOST:PORT, each service once, found {text}")
        found[service] = url
    return found


def ports_of_hops(named: Mapping[str, str]) -> frozenset[int]:
    """Give the TCP ports at which the other enclaves are asked."""
    return frozenset(urlsplit(url).port or 443 for url in named.values())


class _Forwarded:
    """One answer on its way through; finished exactly once, as ``answer.Answer`` is."""

    def __init__(
        self,
        serving: Serving,
        service: str,
        path: str,
        raw: bytes,
        salt: bytes | None,
        answer: Answer,
        held: ExitStack,
    ) -> None:
        self._serving, self._service, self._path, self._raw = serving, service, path, raw
        self._answer, self._held = answer, held
        self._hash, self._start = ResponseHash(salt), serving.now()
        self._receipt_id = os.urandom(16).hex()
        self._receipt: Receipt | None = None

    def reply(self) -> Reply:
        answer = self._answer
        kind = answer.headers.get("content-type", "application/json")
        headers = {"content-type": kind, "cache-control": "no-store", "x-receipt-id": self._receipt_id}
        if answer.status != 200:
            data = b"".join(answer.chunks)
            self._held.close()
            if answer.status == 400:
                return Reply(400, {"content-type": kind}, iter((data,)), lambda channel, cut: None)
            raise _failed(self._service, f"it answered {answer.status}")
        if kind.startswith("text/event-stream"):
            return Reply(200, headers, self._stream(), self.finish)
        # Whole, so that an answer whose end or receipt does not hold is none.
        whole = self._hash.update(b"".join(answer.chunks))
        return Reply(200, headers, iter((whole,)), self.finish)

    def finish(self, channel: Channel | None, interrupted: bool) -> Receipt:
        """Sign what was passed on; ``interrupted`` means that not everything could be sent."""
        if self._receipt is None:
            self._held.close()
            theirs = self._answer.receipt
            complete = theirs is not None and not interrupted
            reason = "error" if theirs is None else theirs.served.finish_reason
            chat = f"hop-{self._receipt_id}" if theirs is None else theirs.served.chat_id
            served = Served(
                self._receipt_id, chat, self._path, self._start, self._serving.now(), complete,
                "cancelled" if interrupted else reason,
            )  # fmt: skip
            origin = self._serving.origin(self._serving.admission.size, self._serving.size())
            answered = Answered(
                served, origin, self._raw, self._hash, (), (), self._parameters(theirs), channel
            )
            self._receipt = self._serving.book.issue(answered, self._serving.sign)
        return self._receipt

    def _stream(self) -> Iterator[bytes]:
        try:
            for chunk in self._answer.chunks:
                yield self._hash.update(chunk)
        except QuotaryError as error:
            # What was sent cannot be taken back; the receipt says that it was not the whole.
            yield self._hash.update(b"data: " + _failed(self._service, str(error)).body() + b"\n\n")

    def _parameters(self, theirs: Receipt | None) -> Mapping[str, int | str]:
        verdict = self._answer.verdict
        found = {
            "hop_service": self._service,
            "hop_measurement": verdict.measurement_id.hex(),
            "hop_weights": verdict.predicate.weights_sha256.hex(),
            "hop_keyset": verdict.keyset.digest.hex(),
        }
        if theirs is not None:
            self._serving.book.keep(theirs)
            found |= {"hop_receipt_id": theirs.served.receipt_id, "hop_receipt": theirs.digest().hex()}
        return found


def _failed(service: str, reason: str) -> APIError:
    message = f"{service} was not asked or did not answer: {reason}"
    return APIError(502, "hop_failed", message, kind="server_error")
