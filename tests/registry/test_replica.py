"""A worker reads what waits for other services only when it matters."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from quotary.errors import Malformed
from quotary.statements.envelope import Envelope
from quotary.statements.opened import open_entry
from quotary.tlog.merkle import leaf_hash
from registry import replica as module
from registry.glance import released_service
from registry.replica import Replica
from tests.fakes.authority import ORIGIN, SERVICE, TS, Authority
from tests.fakes.inprocess import Local, local

OTHER = "other/service"
IMITATION = {
    "service": OTHER,
    "source": {"revision": "r", "uri": "u"},
    "weights_sha256": "0" * 64,
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        made = found.authority
        for service in (SERVICE, OTHER):
            found.append(made.allocation(service), made.delegation(service=service))
        yield found


@contextmanager
def opened() -> Iterator[list[None]]:
    """Collect one item for each entry that is opened inside."""
    found: list[None] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is open_entry.__code__:
            found.append(None)

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


def wait(log: Local, *entries: bytes) -> None:
    log.store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)


def codes(replica: Replica, *entries: bytes) -> list[str]:
    named = {leaf_hash(entry): open_entry(entry) for entry in entries}
    return [outcome.code for outcome in replica.judge(named, TS).values()]


def test_releases_of_other_services_are_read_when_their_service_is_asked_for(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    wait(log, *(made.release(f"{number}", service=OTHER) for number in range(8)))
    first = made.release("x")
    with opened() as entries:
        assert codes(replica, first) == ["effective"]
    assert len(entries) == 1
    with opened() as entries:
        assert codes(replica, made.release("y", service=OTHER, sequence=8)) == ["sequence"]
    assert len(entries) == 9
    assert codes(replica, made.release("z", service=OTHER)) == ["effective"]


def test_whatever_is_no_release_is_judged_after_all_that_waits(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    wait(log, made.release("x", service=OTHER))
    assert codes(replica, made.release("y")) == ["effective"]
    assert codes(replica, made.revocation(["x"], service="log", signers=("security1",))) == ["effective"]
    with opened() as entries:
        assert codes(replica, made.release("z", service=OTHER)) == ["effective"]
    assert len(entries) == 1


def test_what_waits_and_is_no_release_counts_for_every_service_in_the_order_of_arrival(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    early, late = made.release("x", service=OTHER), made.release("w", service=OTHER)
    wait(log, early, late)
    assert codes(replica, made.release("y")) == ["effective"]
    revocation = made.revocation(["x"], service=OTHER)
    wait(log, revocation)
    assert codes(replica, made.revocation(["x"], service=OTHER)) == ["already-revoked"]
    assert codes(replica, early, late, revocation) == ["replay"] * 3


def test_no_more_is_put_aside_than_fits_into_its_room(log: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASIDE_BYTES", 8000)
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    wait(log, *(made.release(f"{number}", service=OTHER) for number in range(8)))
    with opened() as entries:
        assert codes(replica, made.release("x")) == ["effective"]
    assert len(entries) == 9


def test_what_was_put_aside_and_is_logged_meanwhile_is_not_counted_twice(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    first = made.release("x", service=OTHER)
    wait(log, first)
    assert codes(replica, made.release("y")) == ["effective"]
    log.loop.round()
    assert codes(replica, first, made.release("z", service=OTHER)) == ["replay", "effective"]


def test_only_a_release_is_plainly_one(log: Local) -> None:
    made = log.authority
    assert released_service(made.release("x", service=OTHER)) == OTHER
    others = (made.allocation("a"), made.delegation(), made.revocation(["x"]), made.floor(), made.notice())
    for entry in (*others, b"", b"{}", b'{"payload":"', b'{"payload":"!","', b'{"payload":"x"'):
        assert released_service(entry) is None


def test_material_that_looks_like_the_end_of_a_release_does_not_name_its_service(log: Local) -> None:
    entry = Authority().release("x", material={"inner": IMITATION})
    assert OTHER.encode() in Envelope.parse(entry).payload
    assert released_service(entry) == SERVICE
    with pytest.raises(Malformed, match="member name"):
        Authority().release("x", material={"predicateType": "https://quotary.dev/release/v1"})
