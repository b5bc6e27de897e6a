"""Orders of the roots in a registry: an interval of their own, and an end after which nothing grows."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from quotary.errors import Rejected
from quotary.statements.order import Order, order_of
from quotary.statements.state_entry import StateEntry, state_of
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import TlogPolicy
from registry.batch import Intervals
from registry.errors import SignerRefused
from registry.fsck import check_store
from registry.memory import recall
from registry.orders import ended
from registry.recover import Folder, recover_log
from registry.store import Store, Waiting
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Local, local
from tests.vectors.make_orders import CLOSED, FREEZE, ROTATION, order

TOO_FEW = order(FREEZE, ("root1",))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        found.append(found.authority.allocation(), found.authority.delegation())
        yield found


def kinds(store: Store) -> list[str]:
    """What stands in the log: ``s`` statement, ``.`` state entry, or the type of an order."""
    head = store.read.head()
    assert head is not None
    found = []
    for entry in store.read.entries(0, head.size):
        made = order_of(entry)
        found.append(made.kind if made else "." if state_of(entry) else "s")
    return found


def last_state(store: Store) -> StateEntry:
    head = store.read.head()
    assert head is not None
    return StateEntry.parse(store.read.entries(head.size - 1, head.size)[0])


def fsck(log: Local) -> int:
    policy = TlogPolicy.parse(log.config.policy.read_text("utf-8"))
    return check_store(log.store.read, ORIGIN, policy).published


def post(log: Local, entry: bytes) -> tuple[int, str]:
    answer = log.client().post("/api/v1/entries", data=entry)
    document = answer.get_json()
    return answer.status_code, document.get("type", "")


def test_an_order_gets_an_interval_of_its_own_behind_the_statements_of_its_round(log: Local) -> None:
    log.append(order(ROTATION).encode(), log.authority.release("a"))
    assert kinds(log.store) == ["s", ".", "s", "s", ".", "s", ".", "key-rotation", "."]
    assert log.store.read.published_size() == 9
    assert fsck(log) == 9
    log.append(log.authority.release("b"))
    assert fsck(log) == 11


@pytest.mark.parametrize("content", [FREEZE, CLOSED], ids=["freeze", "shard-closed"])
def test_after_its_end_neither_sequencer_nor_signer_grows_the_log(log: Local, content: object) -> None:
    made = order(content)  # type: ignore[arg-type]  # one of the two
    log.append(made.encode())
    head = log.store.read.head()
    assert head is not None
    assert kinds(log.store)[-2:] == [made.kind, "."]
    assert last_state(log.store).end == made.kind == ended(log.store.read, head)
    assert recall(log.config.keys / "signed-head.json").final
    log.append(log.authority.release("a"), order(ROTATION).encode())
    assert log.store.read.head() == head
    assert log.store.read.waiting_count() == 0
    with pytest.raises(SignerRefused, match="end of the log"):
        log.signer.sign(head.size + 1, bytes(32), ())
    assert fsck(log) == head.size


def test_the_checkpoint_of_a_frozen_log_is_still_refreshed(log: Local) -> None:
    log.append(order(FREEZE).encode())
    before = log.store.read.published()
    log.clock.forward(60)
    log.publisher.retry_now(refresh=True)
    log.loop.round()
    after = log.store.read.published()
    assert before is not None
    assert after is not None
    assert (after.size, after.at) == (before.size, before.at + 60)


def test_what_was_promised_before_the_end_is_logged_before_it(log: Local) -> None:
    release = log.authority.release("a")
    rows = [order(FREEZE).encode(), release]
    log.store.write.enqueue([(leaf_hash(entry), entry) for entry in rows], 0)
    log.loop.round()
    assert kinds(log.store)[-2:] == ["s", "."]
    log.loop.round()
    assert kinds(log.store)[-4:] == ["s", ".", "freeze", "."]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (TOO_FEW, "1 signatures by roots"),
        (order(FREEZE, ("security1",)), "a signature by"),
        (order(FREEZE, age=timedelta(days=31)), "issued at"),
    ],
    ids=["too few", "no root", "void"],
)
def test_an_order_that_the_roots_did_not_give_is_dropped_loudly(
    log: Local, made: Order, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = log.store.read.head()
    log.append(made.encode())
    assert log.store.read.head() == head
    assert log.store.read.waiting_count() == 0
    assert why in caplog.records[-1].__dict__["why"]
    assert post(log, log.authority.release("a"))[0] == 202


def test_what_only_looks_like_an_order_is_dropped(log: Local, caplog: pytest.LogCaptureFixture) -> None:
    log.append(b'{"type":"freeze"}')
    assert caplog.records[-1].getMessage() == "order.refused"
    assert log.store.read.waiting_count() == 0


@pytest.mark.parametrize("content", [ROTATION, FREEZE, CLOSED], ids=lambda content: type(content).__name__)
def test_nobody_may_submit_an_order_not_even_the_roots(log: Local, content: object) -> None:
    entry = order(content).encode()  # type: ignore[arg-type]  # one of the three
    assert post(log, entry) == (403, "/problems/reserved")
    assert log.store.read.waiting_count() == 0


def test_a_log_that_has_ended_or_is_about_to_answers_a_problem(log: Local) -> None:
    client, release = log.client(), log.authority.release("a")
    assert client.post("/api/v1/entries", data=release).status_code == 202
    freeze = order(FREEZE).encode()
    log.store.write.enqueue([(leaf_hash(freeze), freeze)], 0)
    late = log.authority.release("b")
    for _ in range(3):
        assert client.post("/api/v1/entries", data=late).get_json()["type"] == "/problems/log-ended"
        log.loop.round()
    assert post(log, late) == (410, "/problems/log-ended")
    assert client.post("/api/v1/entries", data=release).status_code == 200
    lines = client.post("/api/v1/batches", data=release + b"\n" + late + b"\n").get_data(as_text=True)
    assert [line.count("log-ended") for line in lines.splitlines()] == [0, 1]


def test_a_freeze_that_the_roots_did_not_give_stops_nobody(log: Local) -> None:
    client = log.client()
    log.store.write.enqueue([(leaf_hash(TOO_FEW.encode()), TOO_FEW.encode())], 0)
    assert client.post("/api/v1/entries", data=log.authority.release("a")).status_code == 202


@pytest.mark.parametrize("content", [ROTATION, FREEZE, CLOSED], ids=lambda content: type(content).__name__)
def test_pages_and_api_say_what_the_roots_ordered(log: Local, content: object) -> None:
    made = order(content)  # type: ignore[arg-type]  # one of the three
    log.append(made.encode())
    client, index = log.client(), log.store.read.published_size() - 2
    page = client.get(f"/entries/{index}").get_data(as_text=True)
    assert "On the word of its roots" in page
    assert client.get(f"/entries/{index}.json").get_json()["kind"] == made.kind
    said = made.kind if made.ends_log else None
    assert client.get("/api/v1/log").get_json().get("ended") == said
    assert client.get("/log.json").get_json().get("ended") == said
    assert ("This log has ended" in client.get("/").get_data(as_text=True)) == made.ends_log


def test_a_restarted_sequencer_and_a_recovered_log_know_the_end(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        log.append(order(ROTATION).encode())
        log.append(order(FREEZE).encode())
        size = log.store.read.published_size()
    with local(tmp_path) as log:
        log.append(log.authority.allocation())
        assert log.store.read.published_size() == size
    config = log.config
    found = recover_log(config, Folder(config.public), _nobody(), forget_unpublished=False)
    assert found.published == size
    assert recall(config.keys / "signed-head.json").final
    with local(tmp_path) as log:
        log.append(log.authority.allocation())
        assert log.store.read.published_size() == size


def test_fsck_refuses_an_order_in_the_database_that_the_roots_did_not_give(log: Local) -> None:
    entry, head, read = TOO_FEW.encode(), log.store.read.head(), log.store.read
    assert head is not None
    row = Waiting(0, leaf_hash(entry), entry)
    batch = Intervals(ORIGIN, read).close(head, [row], head.ts, "freeze")
    log.store.write.integrate(batch)
    assert kinds(log.store)[-2:] == ["freeze", "."]
    with pytest.raises(Rejected, match="order: found 1 signatures"):
        fsck(log)


def _nobody():  # type: ignore[no-untyped-def]
    from quotary.net.transport import Offline

    return Offline()
