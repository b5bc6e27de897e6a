"""C17: a word that only the client knows is looked for in every byte that leaves a real serving process.

What is looked through: the answers as they stand on the wire, standard output and error of all its processes, every file in
its folders, and its public pages. The word travels sealed, in prompts and in members, headers and paths inside the
channel, through answers, errors, planted mistakes whose messages quote it, hang-ups and a crash.
"""

import http.client
import json
import resource
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.model import MadeModel
from quotary.attestation.document import AttestationDocument
from quotary.client.sealed import MEDIA_TYPE, Head, ResponseOpener, seal_request
from quotary.errors import QuotaryError
from quotary.statements.keyset import CHANNEL, Keyset
from tests.conftest import ROOT
from tests.fakes.authority import NOW, SERVICE
from tests.fakes.processes import until

PATHS = ("/v1/chat/completions", "/v1/models", "/v1/session", "/v1/receipts/")


@dataclass(slots=True)
class Guest:
    """A running server; ``left`` takes every byte that came from it over the network."""

    address: tuple[str, int]
    folder: Path
    process: subprocess.Popen[bytes]
    keyset: Keyset | None = None
    left: bytearray = field(default_factory=bytearray)

    def raw(self, request: bytes, *, hang_up: bool = False) -> bytes:
        """Send bytes and read all that comes back, or hang up after the first of it."""
        with socket.create_connection(self.address, timeout=120) as connection:
            connection.sendall(request)
            found = bytearray()
            with suppress(ConnectionResetError):
                while piece := connection.recv(65_536):
                    found += piece
                    if hang_up:
                        break
        self.left += found
        return bytes(found)

    def http(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def get(self, path: str) -> tuple[int, bytes]:
        with suppress(OSError, http.client.HTTPException):
            status, _, rest = self.http("GET", path).partition(b"\r\n")
            return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]
        return 0, b""

    def sealed(self, head: Head, body: bytes) -> tuple[bytes, ResponseOpener]:
        assert self.keyset is not None
        return seal_request(head, body, self.keyset.of_role(CHANNEL)[0].public, self.keyset.digest)

    def wait(self) -> None:
        """Wait until it serves, and take its keys."""
        until(lambda: self.get("/v1/state")[0] == 200, "the guest serves", 300)
        _, document = self.get("/v1/attestation")
        self.keyset = Keyset.parse(AttestationDocument.parse(unchunked(document)).keyset)


def unchunked(body: bytes) -> bytes:
    found = b""
    while body:
        length, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(length, 16)], body[int(length, 16) + 2 :]
    return found


@contextmanager
def started(folder: Path, model: MadeModel) -> Iterator[Guest]:
    home = folder / "home"
    home.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        words = [
            sys.executable,
            "-m",
            "tests.enclave.canary_guest",
            str(listener.fileno()),
            str(model.folder),
        ]
        words += [model.digest.hex(), str(folder)]
        variables = {"PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(home), "OMP_NUM_THREADS": "1"}
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                words, cwd=home, env=variables, stdout=said, stderr=said, pass_fds=[listener.fileno()]
            )
        address = listener.getsockname()
    guest = Guest(address, folder, process)
    try:
        guest.wait()
        yield guest
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


def question(content: str, **changes: object) -> bytes:
    asked = {
        "model": SERVICE,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0,
    }
    return json.dumps(asked | changes).encode()


def bodies(word: str) -> list[bytes]:
    """Bodies that hold the word, one for each way that a request can end."""
    return [
        question(word), question(word, stream=True), question(f"fail here {word}"), question(f"fail in the model {word}"),
        question(f"warn {word}"), question(f"connect {word}"), question("x", model=word), question("x", **{word: 1}), question("x", stop=[word]),
        question("x", user=word), question(word * 400), question(f"<s>{word}</s>"), question("x", n=word),
        question(word, temperature=word), b'{"model":"' + word.encode(), word.encode(),
        question("x", messages=[{"role": word, "content": "x"}]), question("x", messages=word),
        question("x", response_format={"type": word}),
    ]  # fmt: skip


def ask(guest: Guest, number: int, word: str) -> None:
    """Send one request with the word in it, in the number's way."""
    ways = bodies(word)
    body = ways[number % len(ways)]
    path = PATHS[0] if number % 7 else f"/v1/{word}"
    head = Head.new(
        "POST", path, at=int(NOW.timestamp()), min_log_size=1, headers={"authorization": f"Bearer {word}"}
    )
    wire, opener = guest.sealed(head, body)
    if number % 5 == 1:
        # Broken on the way, replayed, or cut: what the enclave says of that is looked through too.
        wire = wire[: 1400 + number % 50] if number % 2 else wire + b"x"
    posted = f"POST /v1/sealed HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {MEDIA_TYPE}\r\n"
    reply = guest.raw(
        f"{posted}Content-Length: {len(wire)}\r\n\r\n".encode() + wire, hang_up=number % 11 == 3
    )
    with suppress(QuotaryError, ValueError):
        opener.feed(unchunked(reply.partition(b"\r\n\r\n")[2]))
        if opener.head is not None and "x-receipt-id" in opener.head.headers:
            guest.get(f"/v1/receipts/{opener.head.headers['x-receipt-id']}")


def search(folder: Path, model: MadeModel, requests: int, capsys: pytest.CaptureFixture[str]) -> None:
    word = "canary" + secrets.token_hex(16)
    with started(folder, model) as guest:
        # The search finds what is there: in clear, an error of a door that reads prompts in clear quotes its member.
        assert word.encode() in guest.http("POST", PATHS[0], question("x", **{word: 1}))
        guest.left.clear()
        for number in range(requests):
            if number == requests // 2:
                wire, _ = guest.sealed(
                    Head.new("POST", PATHS[0], at=int(NOW.timestamp()), min_log_size=1),
                    question("die " + word),
                )
                guest.http("POST", "/v1/sealed", wire, Content_Type=MEDIA_TYPE)
                guest.wait()
            ask(guest, number, word)
        guest.get("/v1/state")
    said = (folder / "said").read_bytes()
    assert said.count(b"api.failed") > requests // 50
    # The process could not even try to connect, where the kernel has rules for that.
    assert b'"PermissionError"' in said or b"network.unrestricted" in said
    assert b"ConnectionRefusedError" not in said or b"network.unrestricted" in said
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [str(path) for path in files if word.encode() in path.read_bytes()]
    with capsys.disabled():
        print(
            f"\ncanary: {requests} requests, {len(guest.left)} bytes on the wire, {len(files)} files, {len(found)} hits"
        )
    assert found == []
    assert word.encode() not in guest.left
    assert b"Traceback" not in (folder / "said").read_bytes()


@pytest.fixture(autouse=True)
def _cores() -> Iterator[None]:
    """Let a core file be written where nothing forbids it, so that its absence says something."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


def test_c17_no_byte_that_leaves_the_process_holds_a_canary(
    tmp_path: Path, model: MadeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path, model, 200, capsys)


@pytest.mark.soak
def test_c17_no_byte_that_leaves_the_process_holds_a_canary_in_10000_requests(
    tmp_path: Path, model: MadeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path, model, 10_000, capsys)
