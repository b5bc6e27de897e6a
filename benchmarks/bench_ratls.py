"""What the second door and callers cost on one core, beside plain TLS 1.3 in the same run.

Both ends of each handshake are in this process, over memory.
Run: ``.venv/bin/python benchmarks/bench_ratls.py``.
"""

import os
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.attestation.document import AttestationDocument
from quotary.attestation.ratls import AttestedCertificate, make_certificate
from quotary.client.caller import Caller, Callers
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.ratls import ratls_keys, verify_certificate
from quotary.client.sealed import Head
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Verdict
from quotary.client.verify import judge
from quotary.net.tls import server_context, use_certificate
from quotary.statements.keyset import CALLER, KeysetKey
from tests.fakes.enclave import FakeEnclave
from tests.fakes.log import policy_bytes
from tests.fakes.machine import NONCE, World, hardware


def seconds(work: Callable[[], object], count: int) -> float:
    """Processor time of one call, in seconds."""
    started = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - started) / count


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """Shake hands over memory; gives the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = [False, False]
    while not all(done):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert(binary_form=True) or b""


def context_of(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    context = server_context()
    use_certificate(context, certificate, key)
    return context


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}, processor time, one core, both ends")
    with tempfile.TemporaryDirectory() as folder:
        world = World(*hardware(Path(folder))).publish()
        key = ec.generate_private_key(ec.SECP256R1())
        enclave = FakeEnclave(world, tls=key)
        clock, policy = FixedClock(world.now), Policy.parse(policy_bytes(world.policy()))
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        shown = enclave.certificate()
        bare = make_certificate(key, b"", "chat", world.now, world.now.replace(year=world.now.year + 1))
        plain, attested = context_of(bare, key), context_of(shown, key)
        believed = ratls_keys(enclave.keys)

        def connected() -> None:
            assert AttestedCertificate.parse(handshake(attested, client)).spki in believed

        base = seconds(lambda: handshake(plain, client), 400)
        door = seconds(connected, 400)
        print(f"handshake, plain TLS 1.3      {base * 1e3:8.3f} ms   certificate {len(bare)} bytes")
        print(f"handshake, second door        {door * 1e3:8.3f} ms   {door / base:.2f} x plain", end=", ")
        print(f"certificate {len(shown)} bytes")
        document = world.document(keys=enclave.keys)
        bundle = world.bundle()
        once = seconds(lambda: verify_certificate(shown, document, policy, ProcessMemory(), clock), 30)
        whole = seconds(lambda: judge(document, NONCE, bundle, policy, ProcessMemory(), clock), 30)
        print(f"certificate judged, once/min  {once * 1e3:8.3f} ms", end="   ")
        print(f"{once / whole:.2f} x the machine's judgement ({whole * 1e3:.1f} ms)")
        callers(world, policy, clock)


def callers(world: World, policy: Policy, clock: FixedClock) -> None:
    """What each request between enclaves pays for knowing who asks, once the caller is judged."""
    own = Ed25519PrivateKey.generate()
    found = FakeEnclave(world).keys
    named = KeysetKey("caller-1", CALLER, "ed25519", own.public_key().public_bytes_raw())
    keys = replace(found, keys=(named, *found.keys))

    def judged(document: AttestationDocument, nonce: bytes) -> Verdict:
        return judge(document, nonce, world.bundle(), policy, ProcessMemory(), clock)

    book, caller = Callers(judged, clock), Caller(keys.digest, own, bytes)
    nonce = book.challenge()
    book.admit(nonce, world.document(nonce, keys=keys).encode())
    head, body = Head.new("POST", "/v1/chat/completions", at=1, min_log_size=0), b"x" * 2048
    signing = seconds(lambda: caller.signed(head, body, b"K" * 32), 2000)
    signed = caller.signed(head, body, b"K" * 32)
    verifying = seconds(lambda: book.verify(signed, body, b"K" * 32), 2000)
    message = b"m" * 300
    signature, public = own.sign(message), own.public_key()
    bare = seconds(lambda: public.verify(signature, message), 2000)
    print(f"caller: signed / verified     {signing * 1e3:8.3f} / {verifying * 1e3:.3f} ms", end="   ")
    print(f"a bare Ed25519 verification {bare * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
