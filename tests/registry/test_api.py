"""The API's answers and problems, in process: every route, every status, always a problem document."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from quotary.canonical import canonical
from quotary.errors import QuotaryError
from quotary.tlog.merkle import leaf_hash
from registry import problems
from registry.errors import Busy, FlushFailed, SignerUnavailable, StoreFull, StoreUnavailable
from registry.machine import READY_BYTES
from registry.promise import BatchPromise, Promise
from tests.fakes.authority import Authority, measurement
from tests.fakes.inprocess import Local, local

ID = "ab" * 32
PAGES = Path(__file__).resolve().parents[2] / "docs" / "formats"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("api")) as found:
        found.loop.round()
        made = found.authority
        found.append(made.allocation(), made.delegation(), made.release("r1"))
        yield found


@pytest.fixture(scope="module")
def client(log: Local) -> FlaskClient:
    return log.client()


def check_problem(answer, status: int, name: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.data
    found = json.loads(answer.data)
    assert isinstance(found, dict)
    assert found["type"] == f"/problems/{name}"
    assert found["status"] == status
    assert {"title", "detail", "instance"} <= set(found)
    assert answer.headers["Cache-Control"] == "no-store"
    return found


GETS = {
    "/checkpoint": 200,
    "/tile/0/000.p/5": 200,
    "/tile/entries/000.p/5": 200,
    "/api/v1/log": 200,
    "/api/v1/entries/0": 200,
    "/api/v1/proofs/0": 200,
    "/api/v1/consistency?old=1": 200,
    "/api/v1/cose/inclusion/0": 200,
    "/api/v1/cose/consistency/1": 200,
    "/api/v1/search?q=chat": 200,
    "/api/v1/search": 200,
    f"/api/v1/measurements/chat/{measurement('r1').hex()}": 200,
    f"/api/v1/bundles/chat/{measurement('r1').hex()}": 200,
    f"/api/v1/bundles/chat/{ID}": 200,
    "/api/v1/tcb/sim-tdx": 200,
    "/api/v1/services": 200,
    "/api/v1/services/chat": 200,
    "/signed/tile/0/000.p/1": 200,
    "/signed/tile/entries/000.p/1": 200,
    "/openapi.json": 200,
    "/healthz": 200,
    "/readyz": 200,
    "/problems/busy": 200,
}
BROKEN = {
    "/nowhere": (404, "not-found"),
    "/tile/0/0": (400, "malformed"),
    "/tile/64/000": (400, "malformed"),
    "/tile/0/000.p/0": (400, "malformed"),
    "/tile/0/000.p/256": (400, "malformed"),
    "/tile/0/x000/000": (400, "malformed"),
    "/tile/0/..%2f..%2fregistry.toml": (400, "malformed"),
    "/tile/0/000": (404, "not-yet-published"),
    "/tile/0/001.p/1": (404, "not-yet-published"),
    "/tile/entries/000": (404, "not-yet-published"),
    "/signed/tile/0/0": (400, "malformed"),
    "/signed/tile/0/000": (404, "not-yet-published"),
    "/tile/1/000.p/1": (404, "not-yet-published"),
    "/api/v1/entries/99": (404, "not-yet-published"),
    "/api/v1/entries/01": (400, "malformed"),
    "/api/v1/entries/-1": (400, "malformed"),
    "/api/v1/entries/x": (400, "malformed"),
    f"/api/v1/entries/by-hash/{ID}": (404, "not-found"),
    "/api/v1/entries/by-hash/AB": (400, "malformed"),
    "/api/v1/proofs/99": (404, "not-yet-published"),
    f"/api/v1/proofs/{ID}": (404, "not-found"),
    f"/api/v1/proofs/{'AB' * 32}": (400, "malformed"),
    "/api/v1/cose/inclusion/99": (404, "not-yet-published"),
    f"/api/v1/cose/inclusion/{ID}": (404, "not-found"),
    "/api/v1/cose/inclusion/x": (400, "malformed"),
    "/api/v1/cose/consistency/0": (404, "not-yet-published"),
    "/api/v1/cose/consistency/99": (404, "not-yet-published"),
    "/api/v1/cose/consistency/x": (400, "malformed"),
    "/api/v1/consistency": (400, "malformed"),
    "/api/v1/consistency?old=0": (400, "malformed"),
    "/api/v1/consistency?old=3&new=2": (400, "malformed"),
    "/api/v1/consistency?old=1&new=99": (404, "not-yet-published"),
    f"/api/v1/measurements/chat/{ID}": (404, "not-found"),
    "/api/v1/measurements/chat/xy": (400, "malformed"),
    f"/api/v1/measurements/CHAT/{ID}": (400, "malformed"),
    f"/api/v1/bundles/CHAT/{ID}": (400, "malformed"),
    "/api/v1/bundles/chat/xy": (400, "malformed"),
    "/api/v1/tcb/TDX": (400, "malformed"),
    "/api/v1/services/nobody": (404, "not-found"),
    "/api/v1/services/A%20B": (400, "malformed"),
    "/problems/unheard-of": (404, "not-found"),
}


@pytest.mark.parametrize("path", GETS)
def test_each_route_answers(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == GETS[path], answer.data
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", BROKEN)
def test_each_wrong_address_is_a_problem(client: FlaskClient, path: str) -> None:
    status, name = BROKEN[path]
    found = check_problem(client.get(path), status, name)
    if name == "not-yet-published":
        assert isinstance(found["size"], int)


def test_every_route_refuses_the_methods_it_does_not_have(client: FlaskClient) -> None:
    rules = [rule for rule in client.application.url_map.iter_rules() if rule.endpoint != "static"]
    for rule in rules:
        path = re.sub(r"<[^>]*>", "0", re.sub(r"<[^>]*(measurement|digest)>", ID, rule.rule))
        answer = client.delete(path)
        check_problem(answer, 405, "method-not-allowed")
        assert "GET" in answer.headers["Allow"] or "POST" in answer.headers["Allow"]


def test_a_problem_type_is_a_page(client: FlaskClient) -> None:
    for kind in problems.KINDS.values():
        answer = client.get(f"/problems/{kind.name}")
        assert answer.status_code == 200
        assert kind.advice in answer.text


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: FlaskClient) -> None:
    for path, limit in (("/api/v1/entries", 65_535), ("/api/v1/batches", 8 << 20)):
        found = check_problem(client.post(path, data=bytes(limit + 1)), 413, "too-large")
        assert found["limit"] == limit
    lines = b"{}\n" * 10_001
    assert check_problem(client.post("/api/v1/batches", data=lines), 413, "too-large")["limit"] == 10_000


def test_what_is_no_entry_is_malformed_and_what_is_reserved_is_refused(
    client: FlaskClient, log: Local
) -> None:
    for body in (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"payload":"","payloadType":"x","signatures":[]}',
        b'{"a":1,"a":1}',
    ):
        check_problem(client.post("/api/v1/entries", data=body), 400, "malformed")
    state = log.store.read.entries(1, 2)[0]
    for body in (state, canonical({"type": "freeze", "v": 1}), canonical({"type": "anything"})):
        check_problem(client.post("/api/v1/entries", data=body), 403, "reserved")


def test_what_f1_would_ignore_is_not_admitted(client: FlaskClient) -> None:
    other = Authority(origin="log.example.org/other")
    answer = client.post("/api/v1/entries", data=other.genesis())
    assert check_problem(answer, 403, "not-admitted")["code"] == "other-log"
    stranger = Authority().release("r9", signers=("nobody",), sequence=9)
    assert check_problem(client.post("/api/v1/entries", data=stranger), 403, "not-admitted")["code"]


def test_a_waiting_word_that_is_not_known_is_malformed(client: FlaskClient, log: Local) -> None:
    entry = log.store.read.entries(0, 1)[0]
    check_problem(client.post("/api/v1/entries?wait=forever", data=entry), 400, "malformed")


def test_an_answer_can_be_asked_for_again_by_its_etag(client: FlaskClient) -> None:
    for path in ("/checkpoint", "/api/v1/entries/0", "/api/v1/log"):
        etag = client.get(path).headers["ETag"]
        assert client.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_entries_may_be_cached_for_ever_and_the_checkpoint_for_seconds(client: FlaskClient) -> None:
    assert "immutable" in client.get("/api/v1/entries/0").headers["Cache-Control"]
    assert client.get("/checkpoint").headers["Cache-Control"] == "public, max-age=2"


def test_an_accepted_entry_waits_and_comes_back_at_the_same_place(log: Local, client: FlaskClient) -> None:
    entry = log.authority.release("r2")
    first = client.post("/api/v1/entries", data=entry)
    assert first.status_code == 202
    again = client.post("/api/v1/entries", data=entry)
    assert (again.status_code, again.json["leaf_hash"]) == (202, leaf_hash(entry).hex())
    log.loop.round()
    found = client.post("/api/v1/entries", data=entry)
    assert (found.status_code, found.json["published"]) == (200, True)
    assert client.get(found.json["proof"]).status_code == 200
    assert client.get(f"/api/v1/entries/{found.json['index']}").data == entry


def test_an_entry_beyond_the_published_size_is_not_shown(log: Local, client: FlaskClient) -> None:
    size = log.store.read.published_size()
    entry = log.authority.release("r3")
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0)
    log.sequencer.integrate()
    log.sequencer.sign()
    for path in (
        f"/api/v1/entries/{size}",
        f"/api/v1/proofs/{leaf_hash(entry).hex()}",
        f"/tile/0/000.p/{size + 1}",
    ):
        assert check_problem(client.get(path), 404, "not-yet-published")["size"] == size
    assert client.post("/api/v1/entries", data=entry).status_code == 202
    log.loop.round()
    assert client.get(f"/api/v1/entries/{size}").data == entry


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (StoreFull("full"), 507, "full"),
        (StoreUnavailable("away"), 503, "unavailable"),
        (SignerUnavailable("away"), 503, "unavailable"),
        (Busy("16384 wait", 5), 429, "busy"),
        (RuntimeError("the password is secret"), 500, "internal"),
        (QuotaryError("odd"), 500, "internal"),
    ],
)
def test_an_error_from_below_is_a_problem_that_tells_no_secret(
    log: Local, error: Exception, status: int, name: str
) -> None:
    client = log.client()
    client.application.testing = False

    def fail() -> None:
        raise error

    client.application.view_functions["health.healthz"] = fail
    answer = client.get("/healthz")
    found = check_problem(answer, status, name)
    assert "secret" not in answer.text
    assert ("request_id" in found) is (status == 500)
    assert answer.headers.get("Retry-After") == ("5" if status in (429, 503) else None)


def test_a_log_that_has_not_published_says_so(tmp_path: Path) -> None:
    with local(tmp_path) as fresh:
        client = fresh.client()
        check_problem(client.get("/checkpoint"), 404, "not-yet-published")
        check_problem(client.get("/readyz"), 503, "unavailable")
        assert client.get("/healthz").status_code == 200
        assert client.get("/api/v1/log").json["published"] == 0


def test_a_registry_whose_sequencer_stands_is_not_ready(tmp_path: Path) -> None:
    with local(tmp_path) as found:
        found.loop.round()
        client = found.client()
        assert client.get("/readyz").text.startswith("published size 2\ncheckpoint age 0 s\nsigner answers\n")
        found.clock.forward(360)
        assert client.get("/readyz").status_code == 200
        found.clock.forward(1)
        detail = check_problem(client.get("/readyz"), 503, "unavailable")["detail"]
        assert "361 s old, wanted at most 360 s" in str(detail)
        found.publisher.retry_now(refresh=True)
        found.loop.round()
        assert client.get("/readyz").status_code == 200


def test_a_registry_without_signer_or_room_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(tmp_path) as found:
        found.loop.round()
        client = found.client()
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=READY_BYTES - 1))
        check_problem(client.get("/readyz"), 507, "full")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=READY_BYTES))
        assert client.get("/readyz").status_code == 200
    check_problem(client.get("/readyz"), 503, "unavailable")
    assert client.get("/healthz").status_code == 200


def test_t22_a_worker_that_writes_nothing_any_more_is_not_ready_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(tmp_path) as found:
        found.loop.round()
        client = found.client()
        site = client.application.extensions["registry"]
        site.store.write._failed = FlushFailed("a flush of the database that failed")
        check_problem(client.get("/readyz"), 503, "unavailable")
        detail = check_problem(
            client.post("/api/v1/entries", data=found.authority.allocation()), 503, "unavailable"
        )
        assert "a flush of the database that failed" in str(detail["detail"])
        assert client.get("/checkpoint").status_code == 200


def test_the_examples_of_the_page_are_what_the_code_makes(client: FlaskClient) -> None:
    text = (PAGES / "api.md").read_text("utf-8")
    examples = dict(re.findall(r"```\w+ example=(\w+)\n(.*?)```", text, re.S))
    assert str(Promise.parse(examples["promise"])) == examples["promise"]
    assert str(BatchPromise.parse(examples["batch_promise"])) == examples["batch_promise"]
    problem = check_problem(client.get("/api/v1/proofs/50"), 404, "not-yet-published")
    assert set(json.loads(examples["problem"])) == set(problem)
    assert {"promise", "location"} <= set(json.loads(examples["accepted"]))
    assert set(json.loads(examples["published"])) == {
        "leaf_hash",
        "statement_id",
        "index",
        "published",
        "proof",
    }
    for kind in problems.KINDS.values():
        assert f"| {kind.name} |" in text
