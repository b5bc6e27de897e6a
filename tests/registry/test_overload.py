"""Bar A61, counted: five times what may wait is posted; what is too much is refused by name, and nothing that was
accepted is lost.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from quotary.tlog.merkle import leaf_hash
from registry import admission, wire
from registry.admission import Accepted
from registry.promise import verify_promise
from tests.fakes.authority import TS
from tests.fakes.inprocess import Local, local

ROOM = 12
TIMES = 5


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "MAX_WAITING", ROOM)
        found.loop.round()
        yield found


def entries(log: Local, count: int = TIMES * ROOM) -> list[bytes]:
    return [log.authority.allocation(f"service{number}") for number in range(count)]


def published(log: Local, made: list[bytes]) -> list[bool]:
    size, places = log.store.read.published_size(), log.store.read.find_all(list(map(leaf_hash, made)))
    return [places.get(leaf_hash(entry), size) < size for entry in made]


def test_a61_five_times_what_may_wait_is_accepted_as_far_as_it_fits_and_refused_by_name(log: Local) -> None:
    made, app = entries(log), log.client().application

    def post(entry: bytes) -> tuple[int, str, str]:
        answer = app.test_client().post("/api/v1/entries", data=entry)
        kind = json.loads(answer.data).get("type", "")
        return answer.status_code, kind, answer.headers.get("Retry-After", "")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, made))
    accepted = [answer[0] == 202 for answer in answers]
    assert {answer for answer in answers if answer[0] != 202} == {(429, "/problems/busy", "5")}
    assert ROOM // 2 <= sum(accepted) == log.store.read.waiting_count() <= ROOM
    log.loop.round()
    assert published(log, made) == accepted
    refused = [entry for entry, taken in zip(made, accepted, strict=True) if not taken]
    while refused:  # they come again, as the answer said, and find room after each round
        assert [post(entry)[0] for entry in refused[:ROOM]] == [202] * len(refused[:ROOM])
        log.loop.round()
        refused = refused[ROOM:]
    assert all(published(log, made))


def test_a61_of_those_who_ask_for_promises_together_each_gets_his_own(log: Local) -> None:
    site = log.client().application.extensions["registry"]
    items = [Accepted(bytes([number]) * 32, "", TS) for number in range(32)]
    with ThreadPoolExecutor(len(items)) as pool:
        notes = list(pool.map(site.desk.promise, items))
    found = [verify_promise(note, site.keys.promise).leaf_hash for note in notes]
    assert found == [item.leaf_hash for item in items]


def test_a61_three_hundred_workers_threads_may_ask_a_busy_signer_at_once(tmp_path: Path) -> None:
    with closing(wire.listen(tmp_path / "signer.sock")), ExitStack() as stack:
        for _ in range(300):  # nobody accepts yet: each waits its turn, and none is turned away
            stack.enter_context(closing(wire.connect(tmp_path / "signer.sock", 1.0)))


def test_a61_a_batch_that_does_not_fit_is_refused_whole(log: Local) -> None:
    made = entries(log, ROOM + 1)
    client = log.client()
    answer = client.post("/api/v1/batches", data=b"\n".join(made))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert log.store.read.waiting_count() == 0
    assert client.post("/api/v1/batches", data=b"\n".join(made[:-1])).status_code == 200
    assert client.post("/api/v1/entries", data=made[-1]).status_code == 429
    log.loop.round()
    assert published(log, made) == [True] * ROOM + [False]
