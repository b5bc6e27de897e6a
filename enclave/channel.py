"""The server's side of the sealed channel: open, refuse a second use, dispatch, seal the reply with
its receipt.
"""

from collections.abc import Iterator

from enclave.answer import Reply
from quotary.client.receipt import Channel
from quotary.client.sealed import OpenedRequest, ResponseHead, ResponseSealer


class SealedBody:
    """A response body for a WSGI server, which calls ``close`` when the client has all of it or has gone
    away.

    (A generator would not do: one that was never started does not notice that it is closed.)
    """

    def __init__(self, request: OpenedRequest, reply: Reply) -> None:
        self._reply = reply
        self._sealer = request.respond()
        self._wire_digest = request.wire_digest
        self._wants_receipt = "ed25519" in request.head.want
        self._frames = self._seal(reply, self._sealer)
        self._finished = False

    def __iter__(self) -> Iterator[bytes]:
        return self._frames

    def close(self) -> None:
        if not self._finished:
            self._finished = True
            self._reply.finish(self._channel(), True)

    def _seal(self, reply: Reply, sealer: ResponseSealer) -> Iterator[bytes]:
        yield sealer.start(ResponseHead(reply.status, reply.headers))
        for piece in reply.body:
            yield sealer.data(piece)
        self._finished = True
        receipt = reply.finish(self._channel(), False)
        yield sealer.end(receipt.encode() if receipt is not None and self._wants_receipt else b"")

    def _channel(self) -> Channel:
        return Channel(self._wire_digest, self._sealer.frames, self._sealer.chain)


class PlainBody:
    """The same for a reply without a channel."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._pieces = self._send(reply)
        self._finished = False

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        if not self._finished:
            self._finished = True
            self._reply.finish(None, True)

    def _send(self, reply: Reply) -> Iterator[bytes]:
        yield from reply.body
        self._finished = True
        reply.finish(None, False)
