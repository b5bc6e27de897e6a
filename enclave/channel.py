"""The server's side of the sealed channel: open, refuse a second use, dispatch, seal the reply with
its receipt.
"""

from collections.abc import Iterator

from enclave.answer import LAST_EVENT, Reply
from enclave.beat import Beat
from quotary.client.receipt import Channel
from quotary.client.sealed import OpenedRequest, ResponseHead, ResponseSealer

# A cadence ends in a frame with room for any receipt, whether there is one or none.
END_LENGTH = 2048


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
        beat = reply.beat
        self._frames = self._seal(reply, self._sealer) if beat is None else self._paced(reply, beat)
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
        yield sealer.end(self._receipt(reply))

    def _paced(self, reply: Reply, beat: Beat) -> Iterator[bytes]:
        """Send a frame at each beat, empty ones too, and as many as make the whole a multiple.

        The last event waits for its place, because a client may leave once it has it.
        """
        sealer, waiting, last = self._sealer, b"", b""
        yield sealer.start(ResponseHead(reply.status, reply.headers))
        for piece in reply.body:
            if piece == LAST_EVENT:
                last = piece
            else:
                waiting += piece
            if not beat.left():
                beat.wait()
                yield sealer.one(waiting[: sealer.room])
                waiting = waiting[sealer.room :]
        # Two more come: the last event's and the end.
        while waiting or (sealer.frames + 2) % beat.frames:
            beat.wait()
            yield sealer.one(waiting[: sealer.room])
            waiting = waiting[sealer.room :]
        beat.wait()
        yield sealer.one(last)
        beat.wait()
        yield sealer.end(self._receipt(reply), END_LENGTH)

    def _receipt(self, reply: Reply) -> bytes:
        self._finished = True
        receipt = reply.finish(self._channel(), False)
        return receipt.encode() if receipt is not None and self._wants_receipt else b""

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
