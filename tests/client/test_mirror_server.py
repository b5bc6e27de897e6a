"""A mirror that serves: the log's own bytes at the log's own paths, and revocations that nobody can lose quietly."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3

from quotary.client import forwarding
from quotary.client.forwarding import Forwarder
from quotary.client.log import LogClient
from quotary.client.mirror import mirror
from quotary.client.mirror_server import MirrorServer
from quotary.client.source import Files, HTTPSource
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Reply, Request, Stream
from quotary.tlog.merkle import leaf_hash
from tests.client.test_audit import log_of, policy_of
from tests.fakes.authority import ORIGIN, statement_id_of
from tests.fakes.files import MemorySource, files_of
from tests.fakes.log import FakeLog


@dataclass(slots=True)
class Registry:
    """Where revocations are sent on to: takes them, refuses them, or is away."""

    status: int = 202
    sent: list[bytes] = field(default_factory=list)

    def send(self, request: Request) -> Reply:
        assert request.body is not None
        self.sent.append(request.body)
        if not self.status:
            raise CannotTell("no answer")
        said = {"statement_id": statement_id_of(request.body), "leaf_hash": leaf_hash(request.body).hex()}
        return Reply(self.status, {}, json.dumps({**said, "promise": "signed", "title": "no"}).encode())

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        raise NotImplementedError


@dataclass(slots=True)
class Scene:
    log: FakeLog
    files: dict[str, bytes]
    folder: Path
    registry: Registry
    forwarder: Forwarder
    address: str
    reports: list[str]

    def ask(self, method: str, path: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request(method, self.address + path, body=body, redirect=False, timeout=20)

    def revocation(self) -> bytes:
        return self.log.maker.revocation(["seed 1"])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    log, registry, reports = log_of(releases=300), Registry(), list[str]()
    files = files_of(log.entries)
    mirror(Files(MemorySource(files)), tmp_path / "copy", policy_of(log), lambda done, size: None)
    (tmp_path / "secret").write_text("not of the log")
    forwarder = Forwarder(tmp_path / "kept", ORIGIN, LogClient(registry, "https://log.example.org"))
    with MirrorServer(("127.0.0.1", 0), tmp_path / "copy", forwarder, reports.append) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield Scene(log, files, tmp_path, registry, forwarder, address, reports)
        server.shutdown()
        thread.join()


def test_every_file_is_served_at_the_path_that_the_log_has_it(scene: Scene) -> None:
    for path, data in scene.files.items():
        answer = scene.ask("GET", f"/{path}")
        assert (answer.status, answer.data) == (200, data)
        assert ("immutable" in answer.headers["Cache-Control"]) == (
            path.startswith("tile") and ".p/" not in path
        )


def test_a_copy_of_the_served_copy_is_the_same_byte_for_byte(scene: Scene) -> None:
    transport = HTTP(plain_http=True)
    found = mirror(
        Files(HTTPSource(transport, scene.address)),
        scene.folder / "second",
        policy_of(scene.log),
        lambda *_: None,
    )
    transport.close()
    assert found.root == scene.log.checkpoint.root
    first, second = scene.folder / "copy", scene.folder / "second"
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    "path",
    ["/", "/secret", "/../secret", "/tile/../../secret", "/tile/%2e%2e/%2e%2e/secret", "/tile/0/0", "/tile/0", "/tile/9/000", "/revocations/../checkpoint", "/revocations/" + "0" * 64],
)  # fmt: skip
def test_nothing_else_has_a_path(scene: Scene, path: str) -> None:
    connection = http.client.HTTPConnection(scene.address.removeprefix("http://"), timeout=20)
    connection.request("GET", path)  # as it stands: other clients resolve the dots themselves
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert b"not of the log" not in answer.read()
    connection.close()


def test_a_revocation_is_kept_sent_on_and_shown_with_the_logs_promise(scene: Scene) -> None:
    entry = scene.revocation()
    answer = scene.ask("POST", "/revocations", entry)
    assert answer.status == 200
    assert json.loads(answer.data)["answer"]["promise"] == "signed"
    assert scene.registry.sent == [entry]
    (shown,) = json.loads(scene.ask("GET", "/revocations").data)["revocations"]
    assert shown["leaf_hash"] == leaf_hash(entry).hex()
    assert scene.ask("GET", f"/revocations/{shown['leaf_hash']}").data == entry
    assert scene.ask("POST", "/revocations", entry).status == 200
    assert scene.registry.sent == [entry]


@pytest.mark.parametrize("status", [0, 403, 500])
def test_a_revocation_that_the_log_does_not_take_is_shown_and_tried_again(scene: Scene, status: int) -> None:
    scene.registry.status = status
    answer = scene.ask("POST", "/revocations", scene.revocation())
    assert answer.status == 202
    assert len(scene.reports) == 1
    (shown,) = json.loads(scene.ask("GET", "/revocations").data)["revocations"]
    assert (shown["answer"], bool(shown["reason"])) == (None, True)
    scene.registry.status = 202
    scene.forwarder.retry()
    (shown,) = json.loads(scene.ask("GET", "/revocations").data)["revocations"]
    assert (shown["answer"]["promise"], shown["reason"]) == ("signed", "")


def test_anything_but_a_revocation_of_this_log_is_refused_and_not_kept(scene: Scene) -> None:
    other = FakeLog("other.example.org/simulation").maker.revocation(["a"])
    for body in (b"", b"{}", scene.log.maker.release("x"), other):
        assert scene.ask("POST", "/revocations", body).status == 400
    assert scene.ask("POST", "/revocations", b"x" * 65_536).status == 413
    assert scene.ask("POST", "/checkpoint", scene.revocation()).status == 404
    assert json.loads(scene.ask("GET", "/revocations").data) == {"revocations": []}
    assert scene.registry.sent == []


def test_no_more_than_so_many_are_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MAX_KEPT", 1)
    first = scene.revocation()
    assert scene.ask("POST", "/revocations", first).status == 200
    assert scene.ask("POST", "/revocations", scene.revocation()).status == 503
    assert scene.ask("POST", "/revocations", first).status == 200
