"""An enclave and its log in this process: real channel, real receipts, and flags that make it lie."""

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enclave.gateway import Gateway, ObliviousBody
from quotary.attestation.ratls import claims_of, make_certificate, report_data_of
from quotary.client.oblivious import GATEWAY_PATH, KEYS, SEALED
from quotary.client.ratchet import PATH, Opening, SessionServer, is_session
from quotary.client.receipt import Channel, Commitments, Origin, Receipt, Served, Signature, commitment
from quotary.client.sealed import MEDIA_TYPE, OpenedRequest, ResponseHead, open_request
from quotary.errors import CannotTell
from quotary.net.transport import Reply, Request, Stream
from quotary.oblivious.ohttp import KEYS_TYPE
from quotary.statements.keyset import GATEWAY, RATLS, Keyset, KeysetKey
from tests.fakes import authority
from tests.fakes.machine import World, keyset, registers

JSON = {"content-type": "application/json"}
ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": "a log"}}]}).encode()
SALT = b"\x05" * 32


def pieces(wire: bytes) -> Iterator[bytes]:
    return (wire[at : at + 100] for at in range(0, len(wire), 100))


@dataclass(slots=True)
class Pieces:
    """An answer's pieces as a body that a server closes."""

    chunks: Iterator[bytes]

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def close(self) -> None:
        pass


@dataclass(slots=True)
class FakeEnclave:
    """Answers a transport's requests as an enclave and its log would; flags make it lie."""

    world: World
    seen: list[Request] = field(default_factory=list)
    status: int = 200
    weights: bytes = bytes.fromhex("04" * 32)
    complete: bool = True
    receipts: bool = True
    cut: int = 0
    cut_capsule: int = 0
    forget_keyset: int = 0
    measured_as: str = "machine"
    log_down: bool = False
    show_bundle: bool = False
    gateway: Gateway | None = None
    prompts: list[bytes] = field(default_factory=list)
    heads: list[Mapping[str, str]] = field(default_factory=list)
    session: SessionServer | None = None
    roots: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    kind: str = "application/json"
    tls: ec.EllipticCurvePrivateKey | None = None

    def send(self, request: Request) -> Reply:
        self.seen.append(request)
        if "/v1/attestation" in request.url:
            nonce = bytes.fromhex(request.url.partition("nonce=")[2])
            document = self.world.document(nonce=nonce, found=registers(self.measured_as), keys=self.keys)
            if self.show_bundle:
                document = replace(document, bundle=self.world.bundle())
            return Reply(200, JSON, document.encode())
        if "/api/v1/bundles/" in request.url:
            if self.log_down:
                raise CannotTell("no answer from the log")
            measurement = bytes.fromhex(request.url.rpartition("/")[2])
            if measurement == self.world.measurement:
                return Reply(200, {}, self.world.bundle())
            return Reply(200, {}, self.world.log.absence(measurement, ts=self.world.ts).encode())
        if request.url.endswith(KEYS) and self.gateway is not None:
            return Reply(200, {"content-type": KEYS_TYPE}, self.gateway.config.encode_list())
        if "/v1/receipt-roots" in request.url and self.roots is not None:
            return Reply(200, {}, self.roots)
        for path, data in self.files.items():
            if request.url.endswith(f"/{path}"):
                return Reply(200, {}, data)
        return Reply(404, {}, b"{}")

    @property
    def keys(self) -> Keyset:
        """Its keyset, with the keys of its gateway and its second door where it has them."""
        found = keyset(self.world.channel.public, at=self.world.now)
        more: list[KeysetKey] = []
        if self.gateway is not None:
            more.append(KeysetKey("gateway-1", GATEWAY, "x25519", self.gateway.public))
        if self.tls is not None:
            public = self.tls.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            more.append(KeysetKey("ratls-1", RATLS, "p-256", public))
        return replace(found, keys=(found.keys[0], *more, *found.keys[1:]))

    def certificate(self) -> bytes:
        """What its second door shows."""
        assert self.tls is not None
        quote = self.world.platform.quote(
            self.world.registers(), report_data_of(claims_of(self.tls.public_key()))
        )
        return make_certificate(self.tls, quote, "chat", self.world.now, self.world.now + timedelta(hours=1))

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        self.seen.append(request)
        if self.forget_keyset:
            self.forget_keyset -= 1
            yield Stream(422, {}, iter([b'{"error":{"message":"attest again"}}']))
            return
        if request.body is None:
            reply = self.send(request)
            yield Stream(reply.status, reply.headers, iter([reply.body]))
            return
        if request.url.endswith(GATEWAY_PATH) and self.gateway is not None:
            opened_capsule = self.gateway.open(request.body, request.headers["Content-Type"])
            with self.open(Request(SEALED, "POST", opened_capsule.request.content)) as inner:
                body = ObliviousBody(opened_capsule, inner.status, inner.headers, Pieces(inner.chunks))
                wire = b"".join(body)
            wire = wire[: len(wire) - self.cut_capsule]
            yield Stream(200, {"content-type": opened_capsule.media_type}, pieces(wire))
            return
        digest = hashlib.sha256(self.keys.encode()).digest()
        if is_session(request.body):
            assert self.session is not None
            opened = self.session.open(request.body)
        else:
            opened = open_request(request.body, self.world.channel, digest)
        if opened.head.path == PATH:
            wire = self._offer(opened, digest)
        else:
            self.prompts.append(opened.body)
            self.heads.append(opened.head.headers)
            wire = self._respond(opened, digest)
        wire = wire[: len(wire) - self.cut]
        yield Stream(200, {"content-type": MEDIA_TYPE}, pieces(wire))

    def _offer(self, opened: OpenedRequest, digest: bytes) -> bytes:
        opening = Opening(opened.head.response_secret, opened.transcript, digest)
        self.session, sealer = SessionServer(opening, b"S" * 16, 600), opened.respond()
        wire = sealer.start(ResponseHead(self.status, {}))
        return wire + sealer.data(self.session.offer.encode()) + sealer.end()

    def _respond(self, opened: OpenedRequest, digest: bytes) -> bytes:
        sealer = opened.respond()
        wire = sealer.start(ResponseHead(self.status, {"content-type": self.kind}))
        wire += sealer.data(ANSWER)
        size = len(self.world.log.entries)
        receipt = Receipt(
            1,
            Served(
                "ab" * 16, "chatcmpl-1", opened.head.path, self.world.ts, self.world.ts, self.complete, "stop"
            ),
            Commitments(
                commitment("request", SALT, opened.body),
                commitment("response", SALT, ANSWER),
                bytes(32),
                bytes(32),
                3,
                2,
            ),
            Origin(
                authority.SERVICE,
                "model",
                self.weights,
                self.world.measurement,
                "sim-tdx",
                bytes(32),
                digest,
                self.world.log.origin,
                size,
                size,
            ),
            {"seed": 1},
            Channel(opened.wire_digest, sealer.frames, sealer.chain),
            salt=SALT,
        )
        signature = authority.key("receipt").sign(receipt.signed_bytes())
        signed = replace(receipt, signatures=(Signature("receipt-1", signature),))
        return wire + sealer.end(signed.encode() if self.receipts else b"")


class Answers(Protocol):
    """An enclave, or somebody in its place."""

    def send(self, request: Request) -> Reply: ...
    def open(self, request: Request) -> AbstractContextManager[Stream]: ...


@contextmanager
def over_http(enclave: Answers, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve an enclave and its log on loopback, over TLS where there is a context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = enclave.send(Request(self.path))
            self._answer(reply.status, reply.body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with enclave.open(Request(self.path, "POST", body)) as stream:
                self._answer(stream.status, b"".join(stream.chunks))

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield f"http{'' if context is None else 's'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
