"""Row I1 and bar A41: clients that take their time, through the nginx of ``deploy/``, beside honest ones."""

import resource
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import urllib3

from tests.fakes.namespace import inside, namespace
from tests.fakes.processes import Log, until

MOST_SECONDS = 0.25
HONEST = 400
CUT_SECONDS = 10.0

KINDS = (
    b"GET /checkpoint HTTP/1.1\r\nHost: log\r\nX-Slow: ",
    b"POST /api/v1/entries HTTP/1.1\r\nHost: log\r\nContent-Length: 60000\r\n\r\n{",
    b"POST /api/v1/entries HTTP/1.1\r\nHost: log\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{",
    b"GET /checkpoint HTTP/1.1\r\nHost: log\r\n\r\n" * 100,
)


@contextmanager
def slow_clients(address: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold ``count`` connections: slow heads, slow bodies, and readers who do not read."""
    host, _, port = address.removeprefix("http://").partition(":")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.skip(f"this machine allows {hard} open files, {count} slow clients need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        found = []
        for number in range(count):
            slow = socket.socket()
            stack.callback(slow.close)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(20)
            slow.connect((host, int(port)))
            slow.sendall(KINDS[number % len(KINDS)])
            found.append(slow)
        yield found


def latencies(log: Log, count: int) -> list[float]:
    """Seconds of ``count`` honest reads, half from disk and half from Python; each must succeed."""
    pool = urllib3.PoolManager(maxsize=4, retries=False)

    def ask(number: int) -> float:
        started = time.perf_counter()
        path = "/checkpoint" if number % 2 else f"/api/v1/search?q=honest-{number}"
        assert pool.request("GET", log.address + path, timeout=20).status == 200
        return time.perf_counter() - started

    with ThreadPoolExecutor(4) as threads:
        return sorted(threads.map(ask, range(count)))


def hold(log: Log, count: int) -> float:
    """The 99th percentile of honest reads beside ``count`` slow clients, the best of three rounds."""
    with slow_clients(log.address, count) as slow:
        assert len(slow) == count
        rounds = []
        for _ in range(3):
            rounds.append(latencies(log, HONEST)[int(HONEST * 0.99)])
            if rounds[-1] <= MOST_SECONDS:
                break
        log.publish(log.authority.release(f"beside-{count}"))
    return min(rounds)


def test_a41_hundreds_of_slow_clients_are_not_noticed(doors: dict[str, Log]) -> None:
    assert hold(doors["nginx"], 1000) <= MOST_SECONDS


def test_a41_without_nginx_one_address_holds_a_quarter_of_the_threads_and_the_operator_is_warned() -> None:
    with namespace("quotary-afar", "addr add 192.0.2.1/24 dev lo") as name:
        found = inside(name, "tests.hostile.afar")
    assert found["statuses"] == [200] * 40
    assert isinstance(found["refused"], list)
    assert set(found["refused"]) <= {"HTTP/1.1 429 Too Many Requests", "reset"}
    assert found["warned"] == [2]
    assert found["index"] == 2


@pytest.mark.soak
def test_a41_without_nginx_a_slow_client_is_cut_after_half_a_minute() -> None:
    with namespace("quotary-afar", "addr add 192.0.2.1/24 dev lo") as name:
        found = inside(name, "tests.hostile.afar", "cut")
    assert isinstance(found["cut"], float)
    assert 30 <= found["cut"] <= 45


@pytest.mark.soak
def test_a41_three_thousand_slow_clients_are_not_noticed(doors: dict[str, Log]) -> None:
    assert hold(doors["nginx"], 3000) <= MOST_SECONDS


@pytest.mark.soak
def test_i1_a_slow_head_and_a_slow_body_are_cut_after_ten_seconds(doors: dict[str, Log]) -> None:
    started = time.monotonic()
    with slow_clients(doors["nginx"].address, 30) as slow:
        waiting = [found for number, found in enumerate(slow) if number % len(KINDS) != 3]
        until(lambda: all(map(_is_closed, waiting)), "the slow ones are cut", 3 * CUT_SECONDS)
    assert time.monotonic() - started >= CUT_SECONDS - 1


def _is_closed(found: socket.socket) -> bool:
    ready, _, _ = select.select([found], [], [], 0)
    if not ready:
        return False
    try:
        return found.recv(4096) == b""
    except ConnectionResetError:
        return True
