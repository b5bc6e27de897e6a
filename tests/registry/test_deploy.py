"""What ``deploy/`` ships: nginx before a real registry, and units that start commands which exist."""

import configparser
import json
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import urllib3
from click.testing import CliRunner

from quotary.cli import quotary
from quotary.tlog.tiles import entries_path, tile_path
from tests.fakes import nginx
from tests.fakes.authority import measurement
from tests.fakes.processes import Log, start_log, until

DEPLOY = nginx.CONFIGURATION.parent
UNITS = sorted(DEPLOY.glob("*.service"))
SLOW = 300
HELD = 3


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    if nginx.program() is None:
        pytest.skip("no nginx")
    found = start_log(tmp_path_factory.mktemp("log"))
    made = found.authority
    found.submit(made.allocation(), made.delegation(), made.release("r1"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def front(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """The same log, seen through nginx."""
    upstream = log.address.removeprefix("http://")
    with nginx.running(tmp_path_factory.mktemp("nginx"), log.folder / "public", upstream) as address:
        yield Log(log.folder, log.registry, log.witness, log.authority, at=address)


def get(log: Log, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return log.request("GET", path, headers=headers)


def test_files_come_from_disk_with_the_registrys_own_headers(log: Log, front: Log) -> None:
    size = int(str(log.json("/api/v1/log")["published"]))
    bundle = f"/api/v1/bundles/chat/{measurement('r1').hex()}"
    until(lambda: (log.folder / "public" / bundle[1:]).exists(), "the bundle is exported")
    for path in ("/checkpoint", f"/{tile_path(0, 0, size)}", f"/{entries_path(0, size)}", bundle):
        ours, theirs = get(log, path), get(front, path)
        assert (theirs.status, theirs.headers["Content-Type"]) == (200, ours.headers["Content-Type"]), path
        for name in ("Cache-Control", "X-Content-Type-Options", "Access-Control-Allow-Origin"):
            assert theirs.headers[name] == ours.headers[name], (path, name)
        assert "Strict-Transport-Security" not in theirs.headers, path
        again = get(front, path, **{"If-None-Match": theirs.headers["ETag"]})
        assert again.status in (200, 304)
        if path.startswith("/tile/"):
            assert (theirs.data, again.status) == (ours.data, 304)
    assert front.policy.verify(get(front, "/checkpoint").data).checkpoint.size >= size


def test_what_is_not_on_disk_is_asked_of_the_registry(log: Log, front: Log) -> None:
    for path in (
        "/tile/0/000.p/1",
        f"/api/v1/bundles/chat/{'ab' * 32}",
        "/api/v1/entries/0",
        "/api/v1/services/chat",
        "/",
    ):
        assert get(front, path).status == 200, path
    for path in ("/tile/0/000", "/tile/0/../../registry.toml", "/tile/9/999", "/nothing"):
        answer = get(front, path)
        assert (answer.status, answer.headers["Content-Type"]) == (
            get(log, path).status,
            "application/problem+json",
        ), path


def test_what_is_nobodys_business_is_not_served(log: Log, front: Log) -> None:
    (log.folder / "public" / "tile" / ".half").write_bytes(b"half")
    for path in ("/tile/.half", "/.checkpoint.new", "/metrics"):
        assert get(front, path).status == 404, path
    for path in ("/tile/..%2f..%2fregistry.toml", "/..%2fkeys/root.pem", "/tile/%2e%2e/%2e%2e/registry.toml"):
        answer = get(front, path)
        assert answer.status in (400, 404), path
        assert b"origin" not in answer.data


def test_bodies_are_bounded_before_they_reach_the_registry(front: Log) -> None:
    for path, limit in (
        ("/api/v1/entries", 65_535),
        ("/api/v1/batches", 8 << 20),
        ("/api/v1/evidence/facts", 2 << 20),
    ):
        answer = front.request("POST", path, b" " * (limit + 1))
        found = json.loads(answer.data)
        assert (answer.status, found["type"], found["limit"]) == (413, "/problems/too-large", limit)
        assert front.request("POST", path, b" " * 100).status in (200, 400)


def test_three_hundred_slow_clients_do_not_stop_an_honest_one(front: Log) -> None:
    host, _, port = front.address.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        for number in range(SLOW):
            slow = stack.enter_context(socket.create_connection((host, int(port)), 10))
            head = b"POST /api/v1/entries HTTP/1.1\r\nHost: log\r\nContent-Length: 60000\r\n"
            slow.sendall(head + (b"\r\n{" if number % 2 else b"X-Slow: "))
        assert get(front, "/checkpoint").status == 200
        made = front.authority
        for name in ("slow1", "slow2"):
            front.publish(made.release(name))
        assert get(front, "/api/v1/services/chat").status == 200


def test_reads_go_on_and_writes_say_why_while_the_registry_is_away(log: Log, tmp_path: Path) -> None:
    away = f"127.0.0.1:{nginx.free_port()}"
    with nginx.running(tmp_path, log.folder / "public", away) as address:
        front = Log(log.folder, log.registry, log.witness, log.authority, at=address)
        assert get(front, "/checkpoint").status == 200
        answer = front.request("POST", "/api/v1/entries", b"{}")
        assert (answer.status, json.loads(answer.data)["type"]) == (503, "/problems/unavailable")
        assert answer.headers["Retry-After"] == "5"


def test_posts_beyond_what_is_handed_on_at_once_are_refused_at_once_and_reads_are_not(
    log: Log, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stuck, ExitStack() as stack:
        away = f"127.0.0.1:{stuck.getsockname()[1]}"
        address = stack.enter_context(nginx.running(tmp_path, log.folder / "public", away, posts=HELD))
        front = Log(log.folder, log.registry, log.witness, log.authority, at=address)
        host, _, port = address.removeprefix("http://").partition(":")
        head = b"POST /api/v1/entries HTTP/1.1\r\nHost: log\r\nContent-Length: 2\r\n\r\n"
        stuck.settimeout(10)
        for _ in range(2 * HELD):  # whoever has not sent all does not count
            stack.enter_context(socket.create_connection((host, int(port)), 10)).sendall(head)
        held = [stack.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(HELD)]
        for post in held:
            post.sendall(head + b"{}")
            stack.enter_context(stuck.accept()[0])
        answer = front.request("POST", "/api/v1/entries", b"{}")
        assert (answer.status, json.loads(answer.data)["type"]) == (503, "/problems/unavailable")
        assert answer.headers["Retry-After"] == "5"
        assert get(front, "/checkpoint").status == 200
        read = stack.enter_context(socket.create_connection((host, int(port)), 10))
        read.sendall(b"GET /api/v1/log HTTP/1.1\r\nHost: log\r\n\r\n")
        stack.enter_context(stuck.accept()[0])
        held[0].close()

        def is_handed_on() -> bool:
            stack.enter_context(socket.create_connection((host, int(port)), 10)).sendall(head + b"{}")
            return bool(select.select([stuck], [], [], 0.2)[0])

        until(is_handed_on, "a place is free again")


def test_every_problem_that_nginx_answers_is_one_of_the_registrys(log: Log) -> None:
    text = nginx.CONFIGURATION.read_text("utf-8")
    documents = [json.loads(found) for found in re.findall(r"return \d+ '(.*)\\n';", text)]
    assert len(documents) == 5
    for document in documents:
        page = log.get(document["type"]).decode()
        assert page.startswith(document["title"] + "\n")
        assert f"status: {document['status']}\n" in page


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(unit)
    words = shlex.split(found["Service"]["ExecStart"])
    assert words[0] == "/opt/quotary/bin/quotary"
    result = CliRunner().invoke(quotary, [*words[1:], "--help"])
    assert (result.exit_code, result.output.startswith("Usage:")) == (0, True)
    options = {word for word in words if word.startswith("--")}
    assert all(option in result.output for option in options)
    reload = shlex.split(found["Service"].get("ExecReload", "/bin/kill"))
    if reload[0] == words[0]:
        assert CliRunner().invoke(quotary, [*reload[1:], "--help"]).exit_code == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_understood_and_shut_in(unit: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze")
    # Its program is not installed here; everything else must be as systemd wants it.
    there = tmp_path / unit.name
    there.write_text(unit.read_text("utf-8").replace("/opt/quotary/bin/quotary", sys.executable), "utf-8")
    done = subprocess.run(
        [program, "verify", str(there)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    words = [program, "security", "--offline=true", "--threshold=20", str(there)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
