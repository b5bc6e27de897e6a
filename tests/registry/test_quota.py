"""Quotas: the abuser waits, everybody else does not notice; and lists that come in pages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from registry import api
from registry.app import create_app
from registry.errors import Busy
from registry.quota import MAX_KEYS, Quota, sender
from tests.fakes.inprocess import Local, local


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    quota = Quota("address", 10, 2.0, clock := Seconds())
    quota.take(["a"], 10)
    with pytest.raises(Busy) as caught:
        quota.take(["a"], 5)
    assert caught.value.retry_seconds == 3
    quota.take(["b"], 10)
    clock.now = 2.5
    quota.take(["a"], 5)
    with pytest.raises(Busy):
        quota.take(["a"])
    clock.now = 1000.0
    quota.take(["a"], 10)
    with pytest.raises(Busy):
        quota.take(["a"])


def test_of_several_signers_all_pay_or_none() -> None:
    quota = Quota("builder", 2, 1.0, Seconds())
    quota.take(["a"], 2)
    with pytest.raises(Busy):
        quota.take(["a", "b"])
    quota.take(["b"], 2)
    quota.take([])


def test_the_memory_of_quotas_is_bounded() -> None:
    quota = Quota("address", 1, 1.0, Seconds())
    for number in range(MAX_KEYS + 10):
        quota.take([str(number)])
    assert len(quota._levels) == MAX_KEYS


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("::1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::4", None, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        (None, None, "unknown"),
    ],
)
def test_an_address_is_that_of_the_connection_or_what_the_front_server_says(
    peer: str | None, forwarded: str | None, found: str
) -> None:
    assert sender(peer, forwarded) == found


def client_of(log: Local, **settings: int) -> FlaskClient:
    return create_app(replace(log.config, **settings), now=log.clock).test_client()  # type: ignore[arg-type]


def post(client: FlaskClient, body: bytes, address: str, path: str = "entries") -> tuple[int, str, str]:
    answer = client.post(f"/api/v1/{path}", data=body, headers={"X-Real-IP": address})
    kind = json.loads(answer.data.splitlines()[0]).get("type", "")
    return answer.status_code, kind, answer.headers.get("Retry-After", "")


def test_an_address_that_sends_too_much_waits_and_the_others_do_not(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        client = client_of(log, address_burst=3, address_per_second=1)
        for _ in range(3):
            assert post(client, b"{}", "192.0.2.1")[0] == 400
        assert post(client, b"{}", "192.0.2.1") == (429, "/problems/busy", "1")
        assert post(client, b"{}\n{}\n{}\n{}\n", "192.0.2.2", "batches")[:2] == (429, "/problems/busy")
        assert post(client, log.authority.allocation(), "192.0.2.2")[0] == 202


def test_a_builder_that_sends_too_much_waits_and_its_owners_can_still_revoke(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        made = log.authority
        log.append(made.allocation(), made.delegation())
        client = client_of(log, builder_burst=2, builder_per_second=1)
        first, second, third = (made.release(name) for name in ("r1", "r2", "r3"))
        batch = b"\n".join([first, second, third, made.allocation("other")])
        answer = client.post("/api/v1/batches", data=batch)
        lines = [json.loads(line) for line in answer.data.splitlines()]
        assert [line.get("status") for line in lines] == [202, 202, 429, 202, None]
        assert post(client, third, "192.0.2.9")[:2] == (429, "/problems/busy")
        assert post(client, first, "192.0.2.9")[0] == 202
        revocation = made.revocation(["r1"])
        assert post(client, revocation, "192.0.2.9")[0] == 202


def test_services_and_statements_come_in_pages_by_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_PAGE", 2)
    with local(tmp_path) as log:
        made = log.authority
        log.append(made.allocation(), made.delegation(), *(made.release(f"r{n}") for n in range(3)))
        log.append(*(made.allocation(f"s{n}") for n in range(2)))
        client = client_of(log)
        seen: list[str] = []
        path = "/api/v1/services"
        while path:
            page = client.get(path).get_json()
            seen = page["services"] + seen
            path = f"/api/v1/services?before={page['before']}" if "before" in page else ""
        assert sorted(seen) == ["chat", "log", "s0", "s1"]
        newest = client.get("/api/v1/services/chat").get_json()
        assert [len(newest[name]) for name in ("delegations", "releases", "others")] == [0, 2, 0]
        assert (newest["next_sequence"]["release"], newest["next_sequence"]["delegation"]) == (4, 3)
        older = client.get(f"/api/v1/services/chat?before={newest['before']}").get_json()
        assert [len(older[name]) for name in ("delegations", "releases", "others")] == [1, 1, 0]
        oldest = client.get(f"/api/v1/services/chat?before={older['before']}").get_json()
        assert [len(oldest[name]) for name in ("delegations", "releases", "others")] == [1, 0, 0]
        assert "before" not in oldest
        assert client.get("/api/v1/services/chat?before=0").status_code == 200
        assert client.get("/api/v1/services/none").status_code == 404
        assert client.get("/api/v1/services?before=x").status_code == 400
