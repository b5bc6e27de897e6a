"""Witnesses that lie, stall and break off (rows W1 to W8 of bar A20): raw servers on loopback."""

import gzip
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note, SigningKey
from tests.fakes.log import log_keys, witness_key

DRIP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """One submission to a hostile witness, and what it has to lie with.

    text: the checkpoint's; size: what it covers; now: POSIX seconds by the log's own clock
    key:  the witness's genuine key
    """

    text: str
    size: int
    now: int
    key: SigningKey
    stop: threading.Event


Behaviour = Callable[[socket.socket, Asked], None]


def _answer(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    return head.encode("ascii") + body


def _says(make: Callable[[Asked], bytes]) -> Behaviour:
    return lambda connection, asked: connection.sendall(make(asked))


def _line(
    asked: Asked, *, text: str | None = None, time: int | None = None, key: SigningKey | None = None
) -> bytes:
    made = (key or asked.key).line(text or asked.text, asked.now if time is None else time)
    return made.encode("utf-8")


def _drips(start: bytes, drop: bytes) -> Behaviour:
    def drip(connection: socket.socket, asked: Asked) -> None:
        connection.sendall(start)
        while not asked.stop.wait(DRIP_SECONDS):
            connection.sendall(drop)

    return drip


def _floods(connection: socket.socket, asked: Asked) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not asked.stop.is_set():
        connection.sendall(bytes(65_536))


def _resets(connection: socket.socket, asked: Asked) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _conflict(size: int) -> bytes:
    return _answer(b"%d\n" % size, "409 Conflict", "Content-Type: text/x.tlog.size\r\n")


def _of_another_log(asked: Asked) -> str:
    return str(Checkpoint("log.example.org/other", asked.size, bytes(32)))


def _of_another_root(asked: Asked) -> str:
    return str(Checkpoint(asked.text.partition("\n")[0], asked.size, bytes(32)))


def _forged(asked: Asked) -> bytes:
    """A line under the witness's own name and key id, by a key that is not its own."""
    genuine = Note.parse((asked.text + "\n").encode() + _line(asked)).signatures[0]
    other = Note.parse((asked.text + "\n").encode() + _line(asked, key=witness_key("other"))).signatures[0]
    return str(type(genuine)(genuine.name, genuine.key_id, other.signature)).encode("utf-8")


# What it does, and the state in which the log then knows it.
BEHAVIOURS: dict[str, tuple[Behaviour, str]] = {
    "never answers": (lambda _, asked: asked.stop.wait() and None, "slow"),
    "drips its head": (_drips(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"), "slow"),
    "drips head lines": (_drips(b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n"), "slow"),
    "drips its body": (_drips(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"a"), "slow"),
    "drips interim answers": (_drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "slow"),
    "never ends its body": (_floods, "silent"),
    "announces ten gigabytes": (
        _says(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n"),
        "silent",
    ),
    "resets the connection": (_resets, "silent"),
    "closes without a word": (lambda connection, asked: None, "silent"),
    "speaks another protocol": (_says(lambda _: bytes(range(256)) * 20), "silent"),
    "packs its answer": (
        _says(lambda asked: _answer(gzip.compress(_line(asked)), more="Content-Encoding: gzip\r\n")),
        "silent",
    ),
    "redirects": (
        _says(lambda _: _answer(b"", "307 Elsewhere", "Location: http://127.0.0.1:1/\r\n")),
        "refused",
    ),
    "answers 500": (_says(lambda _: _answer(b"x" * 1000, "500 No")), "refused"),
    "answers with garbage": (_says(lambda _: _answer(b"\xff\x00garbage\n" * 100)), "faulty"),
    "answers with nothing": (_says(lambda _: _answer(b"")), "faulty"),
    "answers a thousand lines": (_says(lambda asked: _answer(b"\xe2\x80\x94 a AAAAAAAA\n" * 1000)), "faulty"),
    "signs with another key": (_says(lambda asked: _answer(_forged(asked))), "faulty"),
    "signs as a log": (_says(lambda asked: _answer(_line(asked, key=log_keys()[0]))), "faulty"),
    "signs another log": (
        _says(lambda asked: _answer(_line(asked, text=_of_another_log(asked)))),
        "faulty",
    ),
    "signs another root": (
        _says(lambda asked: _answer(_line(asked, text=_of_another_root(asked)))),
        "faulty",
    ),
    "repeats an old cosignature": (
        _says(lambda asked: _answer(_line(asked, time=asked.now - 3600))),
        "stale",
    ),
    "signs the future": (_says(lambda asked: _answer(_line(asked, time=asked.now + 172_800))), "stale"),
    "signs no time": (_says(lambda asked: _answer(_line(asked, time=0))), "stale"),
    "claims a larger log": (_says(lambda asked: _conflict(asked.size + 99)), "faulty"),
    "claims the largest log": (_says(lambda _: _conflict(2**63 - 1)), "faulty"),
    "claims a smaller log for ever": (_says(lambda asked: _conflict(1)), "faulty"),
    "claims another root": (_says(lambda _: _answer(b"no\n", "422 No")), "faulty"),
}


class HostileWitness:
    """Listens and does one thing to everybody who submits; what it is asked to show, it has not."""

    def __init__(self, behaviour: Behaviour, key: SigningKey, now: Callable[[], int]) -> None:
        self._behaviour, self._key, self._now = behaviour, key, now
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.asked = 0
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator["HostileWitness"]:
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for other in itertools.chain([thread], self._threads):
                other.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head, _, body = _request(connection).partition(b"\r\n\r\n")
            if not head.startswith(b"POST "):
                connection.sendall(_answer(b"", "404 None"))
                return
            self.asked += 1
            text = Note.parse(body.partition(b"\n\n")[2]).text
            checkpoint = Checkpoint.parse(text)
            self._behaviour(connection, Asked(text, checkpoint.size, self._now(), self._key, self._stop))


def _request(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    ]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body
