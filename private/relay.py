"""The relay of Oblivious HTTP (RFC 9458 section 6): it sees who asks, and bytes that it cannot read.

It knows its gateways by name, from its command line; a client cannot make it connect anywhere else. Of a
request it forwards the body and the media type, of an answer the same; no address, no header of the client's,
no cookie in either direction. Bodies pass through and are kept nowhere; nothing about a request is logged.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound, RequestEntityTooLarge, UnsupportedMediaType

from private import problems
from quotary.attestation.document import MAX_DOCUMENT
from quotary.canonical import hexbytes
from quotary.client.oblivious import ATTESTATION, CAPSULES, KEYS, MAX_CAPSULE
from quotary.errors import CannotTell, Malformed
from quotary.net.transport import Limits, Request, Stream, Transport
from quotary.oblivious.ohttp import KEYS_TYPE

_ANSWER = Limits(read_seconds=300, total_seconds=3600, length=256 << 20)
_DOCUMENT = Limits(length=2 * MAX_DOCUMENT)


def create_app(gateways: Mapping[str, str], transport: Transport) -> Flask:
    """Make the relay of some gateways: their names in this relay's paths, and their addresses."""
    app = Flask("relay", static_folder=None)
    # One more than is allowed, because a stream that ends at its limit looks like a body that does.
    app.config["MAX_CONTENT_LENGTH"] = MAX_CAPSULE + 1

    def target(name: str) -> str:
        if name not in gateways:
            raise NotFound
        return gateways[name]

    def capsule(name: str) -> Response:
        wanted = CAPSULES.get(request.mimetype)
        if wanted is None:
            raise UnsupportedMediaType
        body = request.get_data(cache=False)
        if len(body) > MAX_CAPSULE:
            raise RequestEntityTooLarge
        headers = {"Content-Type": request.mimetype, "Incremental": "?1"}
        sent = Request(f"{target(name)}{KEYS.removesuffix('/keys')}", "POST", body, headers, _ANSWER)
        return _passed(transport, sent, wanted)

    def attestation(name: str) -> Response:
        if set(request.args) != {"nonce"}:
            raise Malformed("an attestation is asked for with a nonce and nothing else")
        nonce = hexbytes(request.args["nonce"], 32)
        sent = Request(f"{target(name)}{ATTESTATION}?nonce={nonce.hex()}", limits=_DOCUMENT)
        return _passed(transport, sent, "application/json")

    def keys(name: str) -> Response:
        return _passed(transport, Request(f"{target(name)}{KEYS}", limits=_DOCUMENT), KEYS_TYPE)

    app.add_url_rule("/<name>", "capsule", capsule, methods=["POST"])
    app.add_url_rule("/<name>/attestation", "attestation", attestation, methods=["GET"])
    app.add_url_rule("/<name>/keys", "keys", keys, methods=["GET"])
    app.add_url_rule("/healthz", "healthz", _alive, methods=["GET"])
    problems.register(app)
    return app


def _alive() -> Response:
    return Response("ok\n", content_type="text/plain")


def _passed(transport: Transport, sent: Request, wanted: str) -> Response:
    """Pass an answer of the wanted media type on while it arrives; of any other, only the status."""
    opened = transport.open(sent)
    stream = opened.__enter__()
    found = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stream.status == 200 and found == wanted:
        response = Response(_Passing(opened, stream), content_type=wanted)
        response.headers["X-Accel-Buffering"] = "no"
        response.headers["Incremental"] = "?1"
        return response
    opened.__exit__(None, None, None)
    refused = 400 <= stream.status < 600
    detail = f"the gateway answered {stream.status}"
    return problems.problem("gateway", detail, stream.status if refused else None)


class _Passing:
    """A body on its way; the server closes it when the client has all of it or has gone away."""

    def __init__(self, opened: AbstractContextManager[Stream], stream: Stream) -> None:
        self._opened, self._chunks = opened, stream.chunks

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except CannotTell:
            # The client sees a stream without its final chunk, and refuses it. Nobody else is to be told.
            return

    def close(self) -> None:
        self._opened.__exit__(None, None, None)
