"""Admission of several entries at once: each gets its own answer, the same bytes one place."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from quotary.statements.opened import Opened
from registry.admission import Accepted, Admission, Logged
from registry.quota import Quota
from registry.replica import Replica, Verdict
from tests.fakes.inprocess import Local, local


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


def post(client: FlaskClient, entry: bytes) -> tuple[int, dict[str, object]]:
    answer = client.post("/api/v1/entries", data=entry)
    return answer.status_code, json.loads(answer.data)


class Overtaken(Replica):
    """Judges after somebody else has brought the same entry, and after it was logged where that is wanted."""

    registry: Local
    logged: bool

    def judge(self, entries: Mapping[bytes, Opened], ts: int) -> dict[bytes, Verdict]:
        brought = [(name, written(item)) for name, item in entries.items()]
        self.registry.store.write.enqueue(brought, ts)
        if self.logged:
            self.registry.loop.round()
        return super().judge(entries, ts)


def written(item: Opened) -> bytes:
    assert item.envelope is not None
    return item.envelope.encode()


@pytest.mark.parametrize("logged", [False, True])
def test_an_entry_that_somebody_else_brings_during_the_judgement_is_no_mistake(
    registry: Local, logged: bool
) -> None:
    entry = registry.authority.allocation("one")
    replica = Overtaken(registry.config.origin, registry.store.read)
    replica.registry, replica.logged = registry, logged
    quota = Quota("builder", 9, 9.0)
    admission = Admission(registry.store, replica, registry.clock, quota)
    (found,) = admission.submit_all([entry])
    assert isinstance(found, Logged if logged else Accepted)
    waiting = [row.data for row in registry.store.read.waiting(9)]
    assert waiting == ([] if logged else [entry])


def test_the_same_line_twice_in_a_batch_gets_one_place(registry: Local) -> None:
    entry, other = registry.authority.allocation("one"), registry.authority.allocation("two")
    body = b"\n".join((entry, other, entry))
    lines = registry.client().post("/api/v1/batches", data=body).data.splitlines()
    first, second, again, promise = map(json.loads, lines)
    assert (first["status"], second["status"]) == (202, 202)
    assert again == {**first, "promised": 2}
    assert "/batch-promise/" in promise["promise"]
    assert [row.data for row in registry.store.read.waiting(9)] == [entry, other]


def test_of_entries_that_come_together_each_gets_its_own_answer(registry: Local) -> None:
    entries = [registry.authority.allocation(f"service{number}") for number in range(8)]
    refused = registry.authority.allocation("nobodys", signers=("root1",))
    posted = [*entries[:4], b"{}", refused, *entries[4:], entries[0]]
    app = registry.client().application
    with ThreadPoolExecutor(len(posted)) as pool:
        answers = list(pool.map(lambda entry: post(app.test_client(), entry), posted))
    assert [status for status, _ in answers] == [202] * 4 + [400, 403] + [202] * 5
    assert answers[5][1]["code"] == "threshold"
    assert answers[0][1]["leaf_hash"] == answers[-1][1]["leaf_hash"]
    assert len({str(answer["leaf_hash"]) for status, answer in answers if status == 202}) == 8
    assert sorted(row.data for row in registry.store.read.waiting(99)) == sorted(entries)
    registry.loop.round()
    assert {post(registry.client(), entry)[0] for entry in entries} == {200}
