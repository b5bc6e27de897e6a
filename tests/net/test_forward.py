"""A forwarder between endpoints of every kind, and the addresses that name them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from quotary.errors import CannotTell, PortInUse, Unsupported, Usage
from quotary.net.endpoint import Endpoint
from quotary.net.forward import Forwarder
from tests.fakes.processes import until


@contextmanager
def echoing(listener: socket.socket) -> Iterator[None]:
    """A server that says everything backwards once it has heard all of it."""

    def serve() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            with taken:
                heard = b""
                while piece := taken.recv(65_536):
                    heard += piece
                taken.sendall(heard[::-1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextmanager
def carrying(
    listener: socket.socket, connect: Callable[[], socket.socket], **limits: float
) -> Iterator[Forwarder]:
    carrier = Forwarder(listener, connect, **limits)  # type: ignore[arg-type]  # numbers
    thread = carrier.start()
    try:
        yield carrier
    finally:
        carrier.close()
        thread.join(10)


def ends(kind: str, folder: Path, name: str) -> tuple[Endpoint, Callable[[socket.socket], Endpoint]]:
    """An endpoint to listen on, and how it is reached."""
    if kind == "unix":
        end = Endpoint.parse(f"unix:{folder}/{name}", listen=True)
        return end, lambda listener: Endpoint.parse(end.text, listen=False)
    return (
        Endpoint.parse("127.0.0.1:0", listen=True),
        lambda listener: Endpoint.parse(f"127.0.0.1:{listener.getsockname()[1]}", listen=False),
    )


def hear_all(connection: socket.socket) -> bytes:
    heard = b""
    while piece := connection.recv(65_536):
        heard += piece
    return heard


@pytest.mark.parametrize("outer", ["tcp", "unix"])
@pytest.mark.parametrize("inner", ["tcp", "unix"])
def test_what_goes_in_comes_out_with_its_end_and_back(outer: str, inner: str, tmp_path: Path) -> None:
    (front, front_at), (back, back_at) = ends(outer, tmp_path, "front"), ends(inner, tmp_path, "back")
    serving, listener = back.listen("--listen"), front.listen("--listen")
    data = bytes(range(256)) * 4000
    with echoing(serving), carrying(listener, lambda: back_at(serving).connect(10)):
        for _ in range(3):
            with front_at(listener).connect(10) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                assert hear_all(connection) == data[::-1]


def test_an_unreachable_target_closes_the_connection_and_the_next_is_carried(tmp_path: Path) -> None:
    front, back = (Endpoint.parse(f"unix:{tmp_path}/{name}", listen=True) for name in ("front", "back"))
    with carrying(front.listen("--listen"), lambda: back.connect(10)):
        with front.connect(10) as connection:
            assert hear_all(connection) == b""
        with echoing(back.listen("--listen")), front.connect(10) as connection:
            connection.sendall(b"ab")
            connection.shutdown(socket.SHUT_WR)
            assert hear_all(connection) == b"ba"


def test_one_connection_too_many_is_closed_at_once(tmp_path: Path) -> None:
    front = Endpoint.parse(f"unix:{tmp_path}/front", listen=True)
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        mine, theirs = socket.socketpair()
        made.append(theirs)
        return mine

    with carrying(front.listen("--listen"), connect, most=1), front.connect(10) as first:
        until(lambda: len(made) == 1, "the first is carried")
        with front.connect(10) as second:
            assert hear_all(second) == b""
        made[0].sendall(b"x")
        assert first.recv(1) == b"x"
        made[0].close()
        assert first.recv(1) == b""


def test_a_connection_on_which_nothing_goes_is_closed(tmp_path: Path) -> None:
    front = Endpoint.parse(f"unix:{tmp_path}/front", listen=True)
    mine, theirs = socket.socketpair()
    with (
        carrying(front.listen("--listen"), lambda: mine, idle_seconds=0.05),
        theirs,
        front.connect(10) as connection,
    ):
        assert hear_all(connection) == b""


@pytest.mark.parametrize(
    ("text", "listen", "kind", "place"),
    [
        ("127.0.0.1:80", True, "tcp", ("127.0.0.1", 80)), ("[::1]:80", False, "tcp", ("::1", 80)),
        ("log.example.org:443", False, "tcp", ("log.example.org", 443)), ("unix:/run/x", True, "unix", "/run/x"),
        ("vsock:8443", True, "vsock", (2**32 - 1, 8443)), ("vsock:16:8443", False, "vsock", (16, 8443)),
    ],
)  # fmt: skip
def test_an_address_names_its_kind(text: str, listen: bool, kind: str, place: object) -> None:
    found = Endpoint.parse(text, listen=listen)
    assert (found.kind, found.place, found.text) == (kind, place, text)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("", True), ("80", True), (":80", True), ("host:", True), ("host:65536", True), ("host:x", False),
        ("unix:relative", True), ("vsock:16:8443", True), ("vsock:8443", False), ("vsock:-1:5", False),
        ("vsock:4294967296:5", False), ("vsock:x", True),
    ],
)  # fmt: skip
def test_what_is_no_address_is_a_usage_error(text: str, listen: bool) -> None:
    with pytest.raises(Usage):
        Endpoint.parse(text, listen=listen)


def test_an_address_that_is_taken_or_silent_says_so(tmp_path: Path) -> None:
    end = Endpoint.parse(f"unix:{tmp_path}/x", listen=True)
    with pytest.raises(CannotTell, match="does not answer"):
        end.connect(1)
    with end.listen("--listen"), pytest.raises(PortInUse, match="cannot listen"):
        end.listen("--listen")
    with pytest.raises(CannotTell, match="does not answer"):
        Endpoint.parse("127.0.0.1:1", listen=False).connect(5)


def test_vsock_is_spoken_where_the_kernel_has_it() -> None:
    """Local loopback (context id 1) where its module is loaded; the hypervisor's own way was never run."""
    try:
        listener = Endpoint.parse("vsock:52347", listen=True).listen("--listen")
    except (Unsupported, PortInUse) as error:
        pytest.skip(f"no vsock here: {error}")
    with echoing(listener):
        try:
            connection = Endpoint.parse("vsock:1:52347", listen=False).connect(5)
        except CannotTell as error:
            pytest.skip(f"no vsock loopback here: {error}")
        with connection:
            connection.sendall(b"ab")
            connection.shutdown(socket.SHUT_WR)
            assert hear_all(connection) == b"ba"
