"""Roots of receipts on their way from an enclave into a real log, which is away for a while."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from enclave.roots import MINUTE, ReceiptRoots
from quotary import Client
from quotary.client.clock import SystemClock
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.receipt import Receipt
from quotary.client.receipt_root import KIND, ReceiptRoot, encode_roots
from quotary.client.root_log import RootBook, RootLogger
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Reply, Request
from quotary.statements.opened import open_entry
from tests.cli.conftest import Live, Run, live, run
from tests.client.test_receipt_root import public
from tests.fakes import authority
from tests.fakes.enclave import FakeEnclave
from tests.fakes.processes import Log, start_log

__all__ = ["live", "run"]


@dataclass(slots=True)
class Served:
    """What an enclave answers; None where it is away."""

    roots: tuple[ReceiptRoot, ...] | None = ()
    places: dict[str, bytes] = field(default_factory=dict)

    def send(self, request: Request) -> Reply:
        if self.roots is None:
            raise CannotTell("no enclave")
        return Reply(200, {}, encode_roots(self.roots))


def root(first: int, seed: int) -> ReceiptRoot:
    return ReceiptRoot(first, 3, bytes([seed]) * 32)


@dataclass(slots=True)
class Network:
    """The enclave in this process and a log over HTTP; ``lose`` takes a reply away after it was made."""

    enclave: Served
    lose: int = 0
    posts: int = 0
    http: HTTP = field(default_factory=lambda: HTTP(plain_http=True))

    def send(self, request: Request) -> Reply:
        if request.url.endswith("/v1/receipt-roots"):
            return self.enclave.send(request)
        reply = self.http.send(request)
        self.posts += request.method == "POST"
        if request.method == "POST" and self.lose:
            self.lose -= 1
            raise CannotTell("the reply was lost")
        return reply

    def open(self, request: Request):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing here is streamed")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    running = start_log(tmp_path_factory.mktemp("registry"), publish_interval=0.05)
    # Where it was: a registry that comes back has the address that it had.
    running.registry.words += ["--bind", running.registry.address.removeprefix("http://")]
    running.submit(running.authority.allocation(), running.authority.delegation(notices=(KIND,)))
    yield running
    running.stop()


def logger(log: Log, network: Network, folder: Path) -> RootLogger:
    client, book = LogClient(network, log.address), RootBook(folder / "roots.db")
    key = authority.key("builder1")
    return RootLogger(
        "http://e", network, client, book, authority.ORIGIN, authority.SERVICE, key, SystemClock()
    )


def names(log: Log, index: int) -> list[tuple[str, bytes]]:
    statement = open_entry(log.get(f"/api/v1/entries/{index}")).statement
    assert statement is not None
    return [(item.name, item.sha256) for item in statement.predicate.items]  # type: ignore[union-attr]  # a notice


def test_what_an_enclave_closed_is_logged_once(log: Log, tmp_path: Path) -> None:
    network = Network(Served((root(0, 1), root(3, 2))))
    following = logger(log, network, tmp_path)
    first = following.round()
    (logged,) = first.logged
    assert (first.seen, logged.roots, first.waiting, first.errors) == (2, 2, 0, ())
    assert names(log, logged.index) == [("receipts/0", b"\x01" * 32), ("receipts/3", b"\x02" * 32)]
    again = logger(log, network, tmp_path).round()
    assert (again.seen, again.logged, again.waiting) == (0, (), 0)


def test_a_log_that_is_away_and_an_enclave_that_restarts_lose_no_root(log: Log, tmp_path: Path) -> None:
    network = Network(Served((root(0, 11),)))
    following = logger(log, network, tmp_path)
    assert log.registry.stop() == 0
    try:
        away = following.round()
        assert (away.seen, away.logged, away.waiting) == (1, (), 1)
        assert isinstance(away.errors[0], CannotTell)
        # Another boot: its receipts are counted from 0 again, under other roots.
        network.enclave.roots = (root(0, 12), root(3, 13))
        assert following.round().waiting == 3
        network.enclave.roots = None
        assert len(following.round().errors) == 2
    finally:
        log.registry.start()
        log.wait_ready()
    back = logger(log, network, tmp_path).round()  # by a process of its own, which died meanwhile
    assert (back.waiting, len(back.errors)) == (0, 1)
    found = sorted(name for logged in back.logged for name in names(log, logged.index))
    assert found == [("receipts/0", b"\x0b" * 32), ("receipts/0", b"\x0c" * 32), ("receipts/3", b"\x0d" * 32)]


def test_a_statement_whose_reply_was_lost_is_sent_again_and_not_made_again(log: Log, tmp_path: Path) -> None:
    network = Network(Served((root(0, 21),)), lose=1)
    following = logger(log, network, tmp_path)
    lost = following.round()
    assert (lost.logged, lost.waiting, str(lost.errors[0])) == ((), 1, "the reply was lost")
    found = following.round()
    (logged,) = found.logged
    assert (found.waiting, network.posts) == (0, 2)
    rows = log.json(f"/api/v1/search?q={(b'%c' % 21 * 32).hex()}")["results"]
    assert [row["index"] for row in rows] == [logged.index]  # type: ignore[attr-defined]  # a list of objects


def test_a_book_that_is_no_database_ends_it(log: Log, tmp_path: Path) -> None:
    (tmp_path / "roots.db").mkdir()
    with pytest.raises(CannotTell, match="book of roots"):
        logger(log, Network(Served()), tmp_path)


@contextmanager
def over_http(enclave: Served) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = enclave.places.get(self.path) or enclave.send(Request(self.path)).body
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answered(live: Live) -> tuple[Path, Receipt, ReceiptRoots]:
    """An answer of the fake machine, and its receipt under a root that was closed."""
    transport, policy = FakeEnclave(live.world), Policy.parse(live.policy.read_bytes())
    client = Client("http://127.0.0.1:1", policy, log_url="http://x", transport=transport)
    file = client.chat("x").file
    assert file.receipt is not None
    receipt, roots = Receipt.parse(file.receipt), ReceiptRoots()
    roots.add(receipt.sequence, public(receipt), live.world.ts)
    return live.file("answer.json", file.encode()), receipt, roots


def test_the_command_logs_what_is_closed(log: Log, run: Run, live: Live, tmp_path: Path) -> None:
    _, _, roots = answered(live)
    served = Served(roots.closed(live.world.ts + MINUTE))
    key = tmp_path / "root.key"
    key.touch(mode=0o600)
    key.write_bytes(pem("builder1"))
    words = ["--service", authority.SERVICE, "--origin", authority.ORIGIN, "--log", log.address]
    words += ["--key", str(key), "--dir", str(tmp_path / "book"), "--once", "--json"]
    with over_http(served) as url:
        ran = run("receipt", "follow", url, *words)
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["seen"], said["waiting"], [each["roots"] for each in said["logged"]]) == (1, 0, [1])
    ran = run("receipt", "follow", "http://127.0.0.1:1", *words)
    assert (ran.code, json.loads(ran.out)["waiting"]) == (40, 0)


def test_a_receipt_is_shown_up_to_the_log_by_what_enclave_and_log_answer(run: Run, live: Live) -> None:
    evidence, receipt, roots = answered(live)
    place, log = roots.place(receipt.sequence, live.world.ts + MINUTE), live.world.log
    assert place is not None
    entry = log.maker.notice(KIND, items=[place.root.item])
    log.append(entry)
    log.close(live.world.ts)
    index, found = log.entries.index(entry), f"/api/v1/search?q={place.root.root.hex()}"
    served = Served()
    served.places = {
        f"/v1/receipts/{receipt.served.receipt_id}/place": place.encode(),
        found: json.dumps(
            {"results": [{"kind": "release", "index": 1}, {"kind": KIND, "index": index}]}
        ).encode(),
        f"/api/v1/entries/{index}": entry,
        f"/api/v1/proofs/{index}": log.proof(index, live.world.ts),
    }
    judged = ("receipt", "verify", evidence, "--policy", live.policy, "--simulation")
    with over_http(served) as url:
        ran = run(*judged, "--from", url, "--log", url, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["logged_index"] == index
        assert run(*judged, "--from", url, "--place", evidence).code == 2
        other = log.maker.notice(KIND, items=[place.root.item | {"sha256": "ab" * 32}])
        served.places[f"/api/v1/entries/{index}"] = other
        assert run(*judged, "--from", url, "--log", url).code == 10
        served.places[found] = b'{"results": []}'
        assert run(*judged, "--from", url, "--log", url).code == 40
    assert run(*judged, "--from", url, "--log", url).code == 40


def pem(name: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return authority.key(name).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
