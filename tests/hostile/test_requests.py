"""Row I2, I3 and bar A42: the corpus of ``requests.py`` through nginx and directly, beside honest traffic."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.fakes.processes import Log
from tests.hostile.requests import CANARY, NOTHING, Case, cases
from tests.hostile.wire import Heard, exchange

AT_ONCE = 6
MOST_SECONDS = 1.0
PATIENCE_SECONDS = 0.5
MOST_GROWTH = 32 << 20
CASES = cases()


def test_a42_the_corpus_has_more_than_two_hundred_cases() -> None:
    assert len(CASES) > 200
    assert len({case.sent for case in CASES}) == len(CASES)


@pytest.mark.parametrize("door", ["nginx", "gunicorn"])
def test_a42_no_hostile_request_desynchronises_grows_or_stops_the_registry(
    doors: dict[str, Log], door: str
) -> None:
    log = doors[door]
    before, memory = log.json("/api/v1/log"), _resident(log)
    with _honest(log) as asked, ThreadPoolExecutor(AT_ONCE) as pool:
        heard = list(pool.map(lambda case: _send(log, case), CASES))
    wrong = [
        f"{case.name}: {found.statuses}"
        for case, found in zip(CASES, heard, strict=True)
        if not _as_expected(case, found)
    ]
    assert wrong == []
    slow = [case for case, found in zip(CASES, heard, strict=True) if found.first_seconds > MOST_SECONDS]
    assert [case.name for case in slow if _stays_slow(log, case)] == []
    assert next(asked) > 10
    assert log.json("/api/v1/log")["integrated"] == before["integrated"]
    assert _resident(log) - memory <= MOST_GROWTH
    assert "Traceback" not in log.registry.log()


def test_i2_what_the_front_itself_refuses_is_a_problem_document(doors: dict[str, Log]) -> None:
    requests = {
        b"POST /api/v1/entries HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\n": 400,
        b"GET /checkpoint HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n": 400,
        b"POST /api/v1/entries HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n": 400,
        b"POST /api/v1/entries HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n": 413,
    }
    for sent, status in requests.items():
        head, _, body = exchange(doors["nginx"].address, sent).data.partition(b"\r\n\r\n")
        assert b"Content-Type: application/problem+json" in head.split(b"\r\n")
        assert b"Cache-Control: no-store" in head.split(b"\r\n")
        assert json.loads(body)["status"] == status


def _as_expected(case: Case, heard: Heard) -> bool:
    first = heard.statuses[0] if heard.statuses else NOTHING
    answered_tail = CANARY in heard.data and case.answers == 1
    return first in case.statuses and len(heard.statuses) <= case.answers and not answered_tail


def _send(log: Log, case: Case) -> Heard:
    if NOTHING in case.statuses:
        return exchange(log.address, case.sent, patience_seconds=PATIENCE_SECONDS)
    return exchange(log.address, case.sent)


def _stays_slow(log: Log, case: Case) -> bool:
    """Slow alone as well, three times: a busy machine is not the registry."""
    return all(_send(log, case).first_seconds > MOST_SECONDS for _ in range(3))


@contextmanager
def _honest(log: Log) -> Iterator[Iterator[int]]:
    """Ask beside the attack for what only this question's answer holds; gives how often that was right."""
    stop, asked, failures = threading.Event(), count(), []

    def ask() -> None:
        while not stop.is_set():
            number = next(asked)
            answer = log.request("GET", f"/api/v1/search?q=honest-{number}")
            if answer.status != 200 or json.loads(answer.data)["query"] != f"honest-{number}":
                failures.append((number, answer.status, answer.data[:200]))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()
        for number in range(20):
            answer = log.json(f"/api/v1/search?q=after-{number}")
            assert answer["query"] == f"after-{number}"
        assert failures == []


def _resident(log: Log) -> int:
    """Resident bytes of the registry's processes, and of the front where there is one."""
    assert log.registry.process is not None
    pids, found = [log.registry.process.pid], 0
    while pids:
        pid = pids.pop()
        try:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
            found += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * 4096
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
