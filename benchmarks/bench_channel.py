"""What channel, receipts and verification cost in processor time, each beside a reference of the same run.

Run: ``.venv/bin/python benchmarks/bench_channel.py``

The server's answer is made without a model: 64 pieces of the length that a token's event has. So what is
measured is what protection adds, and it is set against a model that takes 10 ms a token. Evidence is
asked for by 64 clients at once from hardware that takes 20 ms a quote.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enclave.answer import Reply
from enclave.batches import NonceBatches
from enclave.channel import PlainBody, SealedBody
from enclave.keyset import LiveKeyset
from enclave.receipts import ReceiptBook
from quotary.attestation.binding import keyset_digest
from quotary.client.ratchet import Offer, Opening, SessionClient, SessionServer
from quotary.client.sealed import Head, PrivateKey, open_request, seal_request
from tests.client.test_session import client_of
from tests.enclave.test_receipts import answered
from tests.fakes.attempt import Attempt
from tests.fakes.enclave import FakeEnclave
from tests.fakes.machine import World, hardware

TOKENS, MODEL_SECONDS = 64, 0.010
KEY, KEYSET = PrivateKey(), bytes(32)
BODY = json.dumps(
    {"model": "chat", "messages": [{"role": "user", "content": "What is a log? " * 20}]}
).encode()


def event(number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": " token"}, "finish_reason": None}
    document = {
        "id": "chatcmpl-" + "0" * 24,
        "object": "chat.completion.chunk",
        "created": 1_795_000_000 + number,
        "model": "example.org/chat",
        "choices": [choice],
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


EVENTS = [event(number) for number in range(TOKENS)] + [b"data: [DONE]\n\n"]


def median(work: Callable[[], object], runs: int = 100, warm: int = 5) -> float:
    """Median processor time in microseconds."""
    times = []
    for number in range(runs + warm):
        before = time.process_time()
        work()
        if number >= warm:
            times.append((time.process_time() - before) * 1e6)
    return statistics.median(times)


def show(what: str, found: str, reference: str, bar: str) -> None:
    print(f"{what:<52} {found:>16}   {reference:<48} bar {bar}", flush=True)


def reply() -> Reply:
    return Reply(200, {"content-type": "text/event-stream"}, iter(EVENTS), lambda channel, cut: None)


def head(pad: int = 256) -> Head:
    return Head.new("POST", "/v1/chat/completions", at=1_795_000_000, min_log_size=7, pad=pad)


def server() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)

    def sealed() -> int:
        return sum(map(len, SealedBody(open_request(wire, KEY, KEYSET), reply())))

    def plain() -> int:
        return sum(map(len, PlainBody(reply())))

    cost, bare = median(sealed), median(plain)
    show(
        "stream of 64 tokens, bytes", f"{sealed() / plain():.2f} x", f"in clear ({plain():,} bytes)", "1.35 x"
    )
    model = TOKENS * MODEL_SECONDS * 1e6
    show("server, a request of 64 tokens", f"{(model + cost) / (model + bare):.4f} x",
         f"in clear with a model of 10 ms a token ({cost:.0f} us added)", "1.01 x")  # fmt: skip
    empty = Reply(200, {}, iter(()), lambda channel, cut: None)
    start = median(lambda: list(SealedBody(open_request(wire, KEY, KEYSET), replace(empty, body=iter(())))))
    aead, piece = AESGCM(bytes(32)), bytes(512)
    seal = median(lambda: aead.encrypt(bytes(12), piece, b""), 500)
    show(
        "server, per token",
        f"{(cost - start) / len(EVENTS):.1f} us",
        f"one AES-GCM of 512 bytes ({seal:.1f} us)",
        "5 us",
    )
    hpke = median(lambda: open_request(wire, KEY, KEYSET))

    def first() -> bytes:
        pieces: Iterator[bytes] = iter(SealedBody(open_request(wire, KEY, KEYSET), reply()))
        return next(pieces) + next(pieces)

    show(
        "first token, added",
        f"{median(first) / 1000:.2f} ms",
        f"opening the request alone ({hpke / 1000:.2f} ms)",
        "5 ms",
    )
    session(hpke)


def session(one_shot: float) -> None:
    """A request of a session beside a one-shot request: opened by the server, sealed by the client."""
    opening = Opening(b"1" * 32, b"2" * 32, KEYSET)
    ends = SessionServer(opening, b"S" * 16, 600)
    client = SessionClient(Offer.parse(ends.offer.encode()), opening)
    wires = [client.seal(head(), BODY)[0] for _ in range(106)]
    ends.open(wires.pop(0))
    found = median(lambda: ends.open(wires.pop(0)))
    show(
        "server, opening a request of a session",
        f"{found / one_shot:.2f} x",
        f"a one-shot one ({one_shot:.0f} us)",
        "1 x",
    )


def receipts() -> None:
    book, live = ReceiptBook(), LiveKeyset.born("example.org/chat", "bench", 1_795_000_000)
    secret = Ed25519PrivateKey.generate()
    bare = median(lambda: secret.sign(bytes(1500)))
    found = median(lambda: book.issue(answered(1), live.sign), 300)
    show(
        "receipt, issued",
        f"{found / 1000:.3f} ms",
        f"{found / bare:.1f} x one Ed25519 signature ({bare:.0f} us)",
        "1 ms",
    )
    length = len(book.issue(answered(1), live.sign).encode())
    show("receipt, length", f"{length} bytes", "the client's copy, with salt", "2,048 bytes")


COLD = """
import sys, tempfile, time
from pathlib import Path
from tests.fakes.attempt import Attempt
from tests.fakes.machine import World, hardware
world = World(*hardware(Path(sys.argv[1]))).publish()
attempt = Attempt.of(world)
before = time.process_time()
attempt.judge()
print(time.process_time() - before)
"""


def client(folder: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    words = [sys.executable, "-c", COLD, str(folder)]
    runs = [
        subprocess.run(words, env=variables, capture_output=True, text=True, check=True) for _ in range(3)
    ]
    cold = statistics.median(float(run.stdout) for run in runs)
    world = World(*hardware(folder)).publish()
    attempt = Attempt.of(world)
    warm = median(attempt.judge, 30)
    show(
        "client, first judgement of a process",
        f"{cold * 1000:.0f} ms",
        f"a later one ({warm / 1000:.1f} ms)",
        "300 ms",
    )
    verified = client_of(FakeEnclave(world))
    verified.verify()
    show(
        "client, a machine judged within the minute",
        f"{median(verified.attested) / 1000:.4f} ms",
        "no evidence asked for",
        "1 ms",
    )


def evidence() -> None:
    """64 clients ask 10 times each; one quote takes 20 ms."""
    quotes, pause = [], threading.Event()

    def quote(about: bytes, root: bytes) -> bytes:
        quotes.append(root)
        pause.wait(0.020)
        return keyset_digest(about + root)

    batches = NonceBatches(quote)
    nonces = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(640)]
    before = time.process_time()
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda nonce: batches.ask(b"keyset", nonce), nonces))
    took = (time.process_time() - before) * 1e6 / len(nonces)
    show(
        "evidence under load, nonces a quote",
        f"{len(nonces) / len(quotes):.0f}",
        f"{took:.0f} us of processor a nonce",
        "50",
    )


def main() -> None:
    print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores; processor time, medians")
    server()
    receipts()
    with tempfile.TemporaryDirectory() as folder:
        client(Path(folder))
    evidence()


if __name__ == "__main__":
    main()
