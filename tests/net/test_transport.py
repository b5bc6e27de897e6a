"""The transport's limits, against servers on loopback that misbehave on purpose."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from quotary.errors import CannotTell, Usage
from quotary.net.transport import HTTP, Limits, Offline, Request

Answer = Callable[[socket.socket], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Serve each connection with ``answer`` and then close it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    received = b""
                    while b"\r\n\r\n" not in received:
                        received += connection.recv(65536)
                    answer(connection)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def sends(*pieces: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return answer


@pytest.fixture
def http() -> Iterator[HTTP]:
    transport = HTTP()
    yield transport
    transport.close()


def test_a_complete_answer_of_any_status_is_returned(http: HTTP) -> None:
    with server(sends(b"HTTP/1.1 404 No\r\nX-Name: a\r\nContent-Length: 4\r\n\r\nbody")) as url:
        reply = http.send(Request(url))
    assert (reply.status, reply.headers["x-name"], reply.body) == (404, "a", b"body")


def test_a_redirect_is_not_followed(http: HTTP) -> None:
    with server(
        sends(b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    ) as url:
        assert http.send(Request(url)).status == 302


def test_a_body_that_announces_too_many_bytes_is_refused_before_it_is_read(http: HTTP) -> None:
    with (
        server(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n")) as url,
        pytest.raises(CannotTell, match="wants to send 11 bytes, the limit is 10"),
    ):
        http.send(Request(url, limits=Limits(length=10)))


def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_limit(http: HTTP) -> None:
    with (
        server(sends(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * 100)) as url,
        pytest.raises(CannotTell, match="sent more than 10 bytes"),
    ):
        http.send(Request(url, limits=Limits(length=10)))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_no_answer(http: HTTP, head: bytes) -> None:
    with server(sends(head)) as url, pytest.raises(CannotTell, match="broke off"):
        http.send(Request(url))


def test_a_compressed_answer_is_refused(http: HTTP) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"
    with server(sends(head)) as url, pytest.raises(CannotTell, match="encoding gzip"):
        http.send(Request(url))


def test_a_silent_server_meets_the_read_limit(http: HTTP) -> None:
    done = threading.Event()

    def silent(connection: socket.socket) -> None:
        done.wait(5)

    with server(silent) as url:
        with pytest.raises(CannotTell, match="no answer"):
            http.send(Request(url, limits=Limits(read_seconds=0.05)))
        done.set()


DRIPS = {
    "a status line": (b"", b"H"),
    "a header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: a\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "the length of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


@pytest.mark.parametrize("what", DRIPS)
def test_whatever_a_server_drips_it_meets_the_total_limit(http: HTTP, what: str) -> None:
    start, drop = DRIPS[what]
    done = threading.Event()

    def drips(connection: socket.socket) -> None:
        connection.sendall(start)
        while not done.wait(0.02):
            connection.sendall(drop)

    with server(drips) as url:
        with pytest.raises(CannotTell, match="not complete after"):
            http.send(Request(url, limits=Limits(total_seconds=0.2)))
        done.set()


@pytest.mark.parametrize("what", ["interim answers", "the length of a chunk"])
def test_whatever_a_server_floods_it_meets_a_limit_of_bytes(http: HTTP, what: str) -> None:
    start, drop = DRIPS[what]

    def floods(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(drop * 4096)

    with server(floods) as url, pytest.raises(CannotTell, match=r"bytes on the wire|more than 65536 bytes"):
        http.send(Request(url, limits=Limits(length=10)))


def test_a_server_that_drips_bytes_meets_the_total_limit(http: HTTP) -> None:
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not stop.wait(0.01):
            connection.sendall(b"x")

    with server(drip) as url:
        with pytest.raises(CannotTell, match="not complete after"):
            http.send(Request(url, limits=Limits(total_seconds=0.1)))
        stop.set()


def test_nobody_listening_is_no_answer(http: HTTP) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(CannotTell, match="no answer"):
        http.send(Request(f"http://127.0.0.1:{port}"))


def test_a_stream_hands_over_each_piece_when_it_arrives(http: HTTP) -> None:
    first_seen = threading.Event()

    def two_pieces(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert first_seen.wait(5)
        connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    with server(two_pieces) as url, http.open(Request(url)) as stream:
        assert next(stream.chunks) == b"one"
        first_seen.set()
        assert b"".join(stream.chunks) == b"two"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1", "http:///x", "http://[::1", "https://"])
def test_other_addresses_are_refused(http: HTTP, url: str) -> None:
    with pytest.raises(Usage, match="not an http or https address"):
        http.send(Request(url))


@pytest.mark.parametrize(
    "host", ["log.example.org", "192.0.2.1", "localhost.example.org", "127.0.0.1.example.org"]
)
def test_plain_http_leaves_this_machine_only_on_request(http: HTTP, host: str) -> None:
    with pytest.raises(Usage, match="plain http is only for this machine"):
        http.send(Request(f"http://{host}/"))


def test_plain_http_may_be_allowed() -> None:
    transport = HTTP(plain_http=True)
    with server(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as url:
        # 0.0.0.0 reaches this machine too, and is not one of its loopback addresses.
        assert transport.send(Request(url.replace("127.0.0.1", "0.0.0.0"))).status == 200
    transport.close()


def test_offline_refuses_and_names_what_was_not_sent() -> None:
    for act in (Offline().send, Offline().open):
        with pytest.raises(CannotTell, match="offline: GET https://log"):
            act(Request("https://log.example.org/checkpoint"))
