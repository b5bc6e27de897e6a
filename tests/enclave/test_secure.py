"""The second door in front of a server: what is carried, what is refused, and what is shown when."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from builder.model import MadeModel
from enclave.api import create_app
from enclave.keyset import ROTATE_SECONDS, LiveKeyset
from enclave.runtime import Enclave, Terms
from enclave.second import second_door
from enclave.secure import Certificates
from enclave.transformer import TransformerModel
from quotary.attestation.ratls import AttestedCertificate
from quotary.client.policy import EnclaveRules
from quotary.client.ratls import ratls_keys
from quotary.errors import Unsupported
from quotary.statements.keyset import Keyset
from tests.enclave.api_site import Site, body, code
from tests.enclave.machine import SERVICE, SteppedClock, ToldMachine
from tests.fakes.processes import until


@contextmanager
def echoing(inner: socket.socket) -> Iterator[list[bytes]]:
    """A server that sends back what it was sent, until the end of it."""
    seen: list[bytes] = []
    inner.listen(8)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = inner.accept()
                with connection:
                    while piece := connection.recv(1 << 16):
                        seen.append(piece)
                        connection.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        inner.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def certificates() -> Certificates:
    found = Certificates()
    found.use(LiveKeyset.born(SERVICE, "one", 1_795_000_000, ratls=True), b"quote")
    return found


@dataclass(slots=True)
class Scene:
    certificates: Certificates = field(default_factory=certificates)
    most: int = 8

    @contextmanager
    def opened(self) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
        with second_door("127.0.0.1:0") as door, echoing(door.inner) as seen:
            door.start(self.certificates, most=self.most)
            yield door.outer.getsockname()[:2], seen


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def connected(address: tuple[str, int], context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    return (context or client_context()).wrap_socket(socket.create_connection(address, 10))


def test_what_is_inside_tls_is_carried_both_ways_and_its_end_is_passed_on() -> None:
    data = bytes(range(256)) * 4096
    with Scene().opened() as (address, seen), connected(address) as connection:
        assert connection.version() == "TLSv1.3"
        writer = threading.Thread(target=connection.sendall, args=(data,))
        found = b""
        writer.start()
        while len(found) < len(data):
            found += connection.recv(1 << 16)
        writer.join(10)
        assert found == data
        assert b"".join(seen) == data


def test_tls_before_1_3_and_no_tls_are_refused() -> None:
    old = client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Scene().opened() as (address, seen):
        with pytest.raises(ssl.SSLError):
            connected(address, old)
        with socket.create_connection(address, 10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                while plain.recv(4096):
                    pass
        assert seen == []


def test_there_is_no_door_before_the_first_certificate_and_none_after_the_last() -> None:
    scene = Scene(Certificates())
    with scene.opened() as (address, seen):
        with pytest.raises(ssl.SSLError):
            connected(address)
        scene.certificates.use(LiveKeyset.born(SERVICE, "one", 1_795_000_000, ratls=True), b"quote")
        with connected(address) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        scene.certificates.destroy()
        with connected(address) as connection, suppress(OSError):
            connection.sendall(b"after the end")
            assert connection.recv(1) == b""
        assert seen == [b"x"]


def test_a_client_that_goes_away_is_told_to_the_server() -> None:
    with Scene().opened() as (address, seen):
        for _ in range(3):
            connection = connected(address)
            connection.sendall(b"x")
            connection.recv(1)
            connection.close()
        until(lambda: len(seen) == 3, "each connection reached the server, so the one before it had ended")


def test_no_more_than_so_many_connections_are_carried() -> None:
    with Scene(most=1).opened() as (address, seen), connected(address) as held:
        held.sendall(b"x")
        assert held.recv(1) == b"x"
        with connected(address) as other, suppress(OSError):
            other.sendall(b"y")
            assert other.recv(1) == b""
        assert seen == [b"x"]


@pytest.fixture
def site(model: MadeModel, loaded: TransformerModel) -> Iterator[Site]:
    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest)
    terms = Terms(SERVICE, EnclaveRules(30, False, ratls=True), 600, ratls=True)
    enclave = Enclave(terms, machine, clock, door="/inner")
    enclave.start(lambda digest: loaded)
    yield Site(enclave, machine, clock, create_app(enclave).test_client())
    enclave.close()


def shown(site: Site) -> AttestedCertificate:
    return AttestedCertificate.parse(site.enclave.certificates.current)


def test_the_certificate_has_the_newest_keysets_key_and_evidence_over_it(site: Site) -> None:
    first = shown(site)
    keyset = site.enclave.keys.current()
    assert keyset is not None
    assert first.spki in ratls_keys(Keyset.parse(keyset.document))
    assert first.quote == first.report_data, "the told machine's quote is what it was asked over"
    site.clock.seconds = ROTATE_SECONDS
    site.enclave.poll()
    newest = site.enclave.keys.current()
    assert newest is not None
    assert shown(site).spki != first.spki
    assert shown(site).spki in ratls_keys(Keyset.parse(newest.document))


def test_an_enclave_that_refuses_shows_no_certificate_any_more(site: Site) -> None:
    assert site.enclave.certificates.open
    site.enclave.refuse("measurement_revoked", "revoked")
    assert not site.enclave.certificates.open


def test_a_platform_without_a_form_in_the_profile_has_no_second_door(
    model: MadeModel, loaded: TransformerModel
) -> None:
    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest, platform="sim-snp")
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, False, ratls=True), 600, ratls=True), machine, clock)
    with pytest.raises(Unsupported, match="sim-snp"):
        enclave.start(lambda digest: loaded)


class Arrived:
    """The connection that a request came in on, as the server hands it over."""

    def __init__(self, path: str) -> None:
        self._path = path

    def getsockname(self) -> str:
        return self._path


@pytest.mark.parametrize(("path", "status"), [("/inner", 200), ("/other", 403), (None, 403)])
def test_a_bare_prompt_is_answered_only_where_it_came_through_the_second_door(
    site: Site, path: str | None, status: int
) -> None:
    environ = {} if path is None else {"gunicorn.socket": Arrived(path)}
    reply = site.http.post("/v1/chat/completions", data=body(), environ_overrides=environ)
    assert reply.status_code == status
    assert status == 200 or code(reply.data) == "plaintext_refused"


def test_a_bare_prompt_is_answered_at_no_socket_where_there_is_no_door(
    model: MadeModel, loaded: TransformerModel
) -> None:
    clock = SteppedClock()
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, False), 600), ToldMachine(clock, model.digest), clock)
    enclave.start(lambda digest: loaded)
    http = create_app(enclave).test_client()
    reply = http.post("/v1/chat/completions", data=body(), environ_overrides={"gunicorn.socket": Arrived("")})
    assert reply.status_code == 403
    enclave.close()
