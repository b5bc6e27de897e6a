"""An OCSP responder with keys of its own; each answer is what a test says it is."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.fakes.aws import NOW, Signer, issue

EXTENDED_KEY_USAGE, OCSP_SIGNING = "2.5.29.37", bytes.fromhex("300a06082b06010505070309")
SERVER_AUTHENTICATION = bytes.fromhex("300a06082b06010505070301")


def responder(
    issuer: Signer, usage: bytes = OCSP_SIGNING, critical: bool = False, **changes: object
) -> Signer:
    """A certificate that may answer for ``issuer``, unless told otherwise."""
    wanted = {"ca": False, "extensions": {EXTENDED_KEY_USAGE: usage}, "critical": critical, **changes}
    return issue("OCSP responder", issuer, **wanted)  # type: ignore[arg-type]  # as issue takes them


def answer(
    certificate: Signer,
    issuer: Signer,
    *,
    by: Signer | None = None,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    this_update: datetime = NOW - timedelta(hours=1),
    next_update: datetime | None = NOW + timedelta(hours=23),
    named_with: HashAlgorithm | None = None,
    signed_with: HashAlgorithm | None = None,
    critical: bool = False,
) -> bytes:
    """What a responder says of a certificate; by: who signs it, the issuer itself if nobody is named."""
    signer = by or issuer
    revoked = status == ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            certificate.certificate,
            issuer.certificate,
            named_with or SHA384(),
            status,
            this_update,
            next_update,
            this_update if revoked else None,
            reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    )
    if critical:
        builder = builder.add_extension(x509.OCSPNonce(bytes(16)), True)
    if by is not None:
        builder = builder.certificates([by.certificate])
    return builder.sign(signer.key, signed_with or SHA384()).public_bytes(Encoding.DER)


def answers(chain: Sequence[Signer], **changes: object) -> list[bytes]:
    """Answers about every certificate of a chain but its last, each by a responder of its issuer."""
    pairs = pairwise(chain)
    return [
        answer(child, issuer, by=responder(issuer), **changes)  # type: ignore[arg-type]  # as answer takes them
        for child, issuer in pairs
    ]


@dataclass
class Service:
    """A responder over HTTP; ``silent``: serial numbers that it gives no answer about."""

    url: str
    asked: list[int]
    silent: set[int]


@contextmanager
def service(chains: Sequence[Sequence[Signer]]) -> Iterator[Service]:
    """Answer on loopback, as RFC 6960 (appendix A) has it, for the certificates of these chains."""
    known = {
        child.certificate.serial_number: (child, issuer)
        for chain in chains
        for child, issuer in pairwise(chain)
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/ocsp-request"
            request = ocsp.load_der_ocsp_request(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked.append(request.serial_number)
            if request.serial_number in known and request.serial_number not in found.silent:
                child, issuer = known[request.serial_number]
                body = answer(child, issuer, by=responder(issuer))
            else:
                refusal = ocsp.OCSPResponseStatus.UNAUTHORIZED
                body = ocsp.OCSPResponseBuilder.build_unsuccessful(refusal).public_bytes(Encoding.DER)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Service(f"http://127.0.0.1:{server.server_port}", [], set())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
