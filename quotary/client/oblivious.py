"""The way to an enclave through a relay (docs/formats/oblivious.md): who asks and what is asked part ways.

``Relayed`` is a transport: where a client would speak to the enclave, it speaks to the relay, and a sealed
request travels in an Oblivious HTTP capsule to the gateway key of the keyset that the client judged. So the
relay sees an address and bytes, the enclave sees a request from the relay.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from quotary.client.sealed import MEDIA_TYPE
from quotary.errors import Malformed, Refused
from quotary.net.transport import Reply, Request, Stream, Transport
from quotary.oblivious import binary_http, ohttp
from quotary.oblivious.binary_http import ResponseReader
from quotary.oblivious.ohttp import ChunkedAnswer, KeyConfig
from quotary.statements.keyset import GATEWAY, Keyset

ATTESTATION = "/v1/attestation"
SEALED = "/v1/sealed"
GATEWAY_PATH = "/v1/oblivious"
KEYS = f"{GATEWAY_PATH}/keys"
CAPSULES = {
    ohttp.REQUEST_TYPE: ohttp.RESPONSE_TYPE,
    ohttp.CHUNKED_REQUEST_TYPE: ohttp.CHUNKED_RESPONSE_TYPE,
}
MAX_CAPSULE = 5 << 18
"""Bytes of a capsule: a sealed request of 1 MiB and what it is wrapped in."""


def gateway_key(keyset: Keyset) -> KeyConfig:
    """Give the gateway's key of an attested keyset, or refuse one that has none or several."""
    found = [key for key in keyset.of_role(GATEWAY) if key.alg == "x25519"]
    if len(found) != 1:
        raise Refused("gateway key", f"a keyset with {len(found)} of them", "one key for X25519")
    return KeyConfig(key_number(found[0].public), found[0].public)


def key_number(public: bytes) -> int:
    """Number a gateway's key in a capsule: its first byte, since the number has one byte and names no one."""
    return public[0]


class Relayed:
    """A transport to one enclave through a relay.

    url:   the enclave's own address, to which nothing is sent
    relay: the relay's address of this enclave, e.g. ``https://relay.example.net/chat``
    """

    def __init__(self, transport: Transport, url: str, relay: str) -> None:
        self._transport, self._url, self._relay = transport, url.rstrip("/"), relay.rstrip("/")
        self._keyset: Keyset | None = None

    def believe(self, keyset: Keyset) -> None:
        """Take the keyset that was judged, if the relay shows the same gateway key as it has."""
        config = gateway_key(keyset)
        shown = self._transport.send(Request(f"{self._relay}/keys"))
        if shown.status != 200 or config not in ohttp.parse_keys(shown.body):
            raise Refused("gateway key", "another key through the relay", "the one of the attested keyset")
        self._keyset = keyset

    def send(self, request: Request) -> Reply:
        """Send what is for the enclave through the relay, and anything else (the log) as it is."""
        if not request.url.startswith(f"{self._url}/"):
            return self._transport.send(request)
        path = request.url.removeprefix(self._url)
        if request.method != "GET" or not path.startswith(f"{ATTESTATION}?"):
            raise Refused(
                "relay", f"{request.method} {path.partition('?')[0]}", "an attestation or a sealed request"
            )
        relayed = f"{self._relay}{path.removeprefix('/v1')}"
        return self._transport.send(Request(relayed, limits=request.limits))

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        """Put a sealed request into a capsule, and take the answer out of one while it arrives."""
        if request.url != f"{self._url}{SEALED}" or self._keyset is None:
            raise Refused("relay", request.url, f"{self._url}{SEALED}, once its keyset is judged")
        inner = binary_http.Request(
            "POST", "https", "", SEALED, (("content-type", MEDIA_TYPE),), request.body or b""
        )
        wire, answer = ohttp.seal_chunked(gateway_key(self._keyset), inner.encode())
        headers = {"Content-Type": ohttp.CHUNKED_REQUEST_TYPE, "Incremental": "?1"}
        with self._transport.open(Request(self._relay, "POST", wire, headers, request.limits)) as stream:
            if stream.status != 200:
                yield stream
                return
            yield _opened(answer, stream)


def _opened(answer: ChunkedAnswer, stream: Stream) -> Stream:
    """Read an answer's head at once and leave its content to be read as it comes."""
    reader = ResponseReader()
    chunks = _content(reader, answer, stream.chunks)
    first = next(chunks, b"")
    if reader.head is None:
        raise Malformed("an oblivious answer holds no answer")
    return Stream(reader.head.status, dict(reader.head.fields), _chain(first, chunks))


def _content(reader: ResponseReader, answer: ChunkedAnswer, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content; the first item comes with the head, even if it is empty."""
    headed = False
    for chunk in chunks:
        data = reader.feed(answer.feed(chunk))
        if data or (reader.head is not None and not headed):
            headed = True
            yield data
    yield reader.feed(answer.close()) + reader.close()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
