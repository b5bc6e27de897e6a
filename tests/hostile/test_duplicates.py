"""Row I10: the same statement from many callers at once is one entry, with one index, and no error."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from tests.fakes.processes import SECONDS, Log, start_log

CALLERS = 64


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """Two workers, so that the same entry is judged in two processes at the same time."""
    found = start_log(tmp_path_factory.mktemp("duplicates"), workers=2, threads=CALLERS)
    found.submit(found.authority.allocation(), found.authority.delegation())
    yield found
    found.stop()


@pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=pytest.mark.soak)], ids=["some", "ten thousand"]
)
def test_i10_concurrent_duplicates_are_one_entry_and_no_error(log: Log, count: int) -> None:
    entry = log.authority.release(f"release-{count}")
    pool = urllib3.PoolManager(maxsize=CALLERS, retries=False)

    def post(number: int) -> tuple[int, str]:
        # A connection of its own for each, for a server may close one that is kept while it is used again.
        path, sent = (
            f"/api/v1/entries?wait={'published' if number % 8 == 0 else 'accepted'}",
            {"Connection": "close"},
        )
        answer = pool.request("POST", log.address + path, body=entry, headers=sent, timeout=SECONDS)
        found = json.loads(answer.data)
        return answer.status, str(found.get("index", "waits")) if answer.status in (200, 202) else found[
            "title"
        ]

    with ThreadPoolExecutor(CALLERS) as callers:
        found = Counter(callers.map(post, range(count)))
    index = log.publish(entry)
    assert {status for status, _ in found} <= {200, 202}, found
    assert {said for _, said in found} <= {"waits", str(index)}
    assert found.total() == count
    size = int(log.get("/checkpoint").split(b"\n")[1])
    assert [at for at in range(size) if log.get(f"/api/v1/entries/{at}") == entry] == [index]
