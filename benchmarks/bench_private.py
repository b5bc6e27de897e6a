"""The private path's costs on one core: tokens signed and verified, capsules opened and answered.

Each beside its bare reference in the same run: Python's own exponentiation, one RSA verification, one HPKE
opening without a capsule. Run: ``.venv/bin/python benchmarks/bench_private.py``.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from enclave.gateway import Gateway, ObliviousBody
from quotary.client.sealed import Head, PrivateKey, open_request, seal_request
from quotary.oblivious import ohttp
from quotary.oblivious.binary_http import Request
from quotary.oblivious.blind_rsa import Signer
from quotary.oblivious.privacy_pass import Challenge, encode_key, issue, request_token

BODY = b"x" * 2048


def seconds(work: Callable[[], object], count: int) -> float:
    """Processor time of one call, in seconds."""
    started = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - started) / count


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}, processor time, one core")
    private = rsa.generate_private_key(65537, 2048)
    public, numbers = private.public_key(), private.private_numbers()
    key, signer, challenge = (
        encode_key(public),
        Signer(private),
        Challenge("issuer.example.org", b"K" * 32, ()),
    )
    pending = request_token(key, challenge)
    message, n = int.from_bytes(pending.request[3:], "big"), public.public_numbers().n
    signing, bare = (
        seconds(lambda: issue(signer, key, pending.request), 200),
        seconds(lambda: pow(message, numbers.d, n), 20),
    )
    print(f"token issued     {1 / signing:9,.0f}/s   {bare / signing:5.1f} x a bare pow(); bar 500/s")
    token = pending.finish(issue(signer, key, pending.request))
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    verifying = seconds(lambda: token.verify(key, challenge), 2000)
    bare = seconds(lambda: public.verify(token.authenticator, token.signed(), pss, hashes.SHA384()), 2000)
    print(f"token verified   {1 / verifying:9,.0f}/s   {bare / verifying:5.2f} x a bare one; bar 10,000/s")
    capsules(300)


def capsules(count: int) -> None:
    """What a capsule adds to a sealed request of 2 KiB and an answer of 64 pieces."""
    gateway, channel, digest = Gateway(), PrivateKey(), b"K" * 32
    sealed = [
        seal_request(
            Head.new("POST", "/v1/chat/completions", at=1, min_log_size=0), BODY, channel.public, digest
        )[0]
        for _ in range(count)
    ]
    asked = [Request("POST", "https", "", "/v1/sealed", (), wire).encode() for wire in sealed]
    wires = iter([ohttp.seal_chunked(gateway.config, item)[0] for item in asked])

    class Pieces:
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter([b"y" * 276] * 64)

        def close(self) -> None:
            pass

    def answered() -> None:
        opened = gateway.open(next(wires), ohttp.CHUNKED_REQUEST_TYPE)
        for _ in ObliviousBody(opened, 200, {}, Pieces()):
            pass

    found = seconds(answered, count)
    plain = iter(sealed)
    bare = seconds(lambda: open_request(next(plain), channel, digest), count)
    print(f"capsule          {1e6 * found:9,.0f} us   {found / bare:5.2f} x the sealed request; bar 1,000 us")


if __name__ == "__main__":
    main()
