"""A worker reads what waits for other services only when it matters."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import CodeType, FrameType

import pytest

from quotary.errors import Malformed
from quotary.statements.envelope import Envelope, key_id, raw_public_key
from quotary.statements.f1 import F1
from quotary.statements.opened import open_entry
from quotary.tlog.merkle import leaf_hash
from registry import replica as module
from registry.glance import released_service
from registry.replica import Replica
from tests.fakes.authority import ORIGIN, SERVICE, TS, Authority, key
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


def opened() -> AbstractContextManager[list[None]]:
    """Collect one item for each entry that is opened inside."""
    return calls_of(open_entry.__code__)


def judged() -> AbstractContextManager[list[None]]:
    """Collect one item for each entry that F1 is asked about inside."""
    return calls_of(F1.admit.__code__)


@contextmanager
def calls_of(code: CodeType) -> Iterator[list[None]]:
    found: list[None] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is code:
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
    return [outcome.code for outcome, _ in replica.judge(named, TS).values()]


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


def admit(replica: Replica, log: Local, *entries: bytes) -> list[str]:
    """Judge entries, and let those wait that may, as admission does."""
    named = {leaf_hash(entry): entry for entry in entries}
    found = replica.judge({name: open_entry(entry) for name, entry in named.items()}, TS)
    wait(log, *(named[name] for name, (outcome, _) in found.items() if outcome.admissible))
    return [outcome.code for outcome, _ in found.values()]


def test_what_a_judgement_let_wait_is_not_judged_again(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    first, second = made.release("x"), made.revocation(["x"])
    assert admit(replica, log, first, made.release("late", sequence=1), second) == [
        "effective",
        "sequence",
        "effective",
    ]
    with judged() as entries:
        assert admit(replica, log, made.release("y"), second) == ["effective", "replay"]
    assert len(entries) == 2
    assert codes(replica, made.revocation(["x"]), made.release("z")) == ["already-revoked", "effective"]
    log.loop.round()
    assert codes(replica, made.revocation(["x"]), first) == ["already-revoked", "replay"]


def test_what_somebody_else_let_wait_beside_a_judgement_counts_as_well(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    mine, theirs = made.release("x"), made.revocation(["x"])
    assert codes(replica, mine) == ["effective"]
    wait(log, mine, theirs)
    assert codes(replica, made.revocation(["x"])) == ["already-revoked"]


def test_what_a_judgement_found_admissible_and_does_not_wait_does_not_count(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    first, second = made.release("x"), made.release("y")
    assert codes(replica, first, second) == ["effective"] * 2
    assert codes(replica, first, second) == ["effective"] * 2
    wait(log, second)
    assert codes(replica, second) == ["replay"]


def test_a_judgement_says_which_keys_signed_what_it_admits(log: Local) -> None:
    made, replica = log.authority, Replica(ORIGIN, log.store.read)
    entries = [made.release("x"), made.delegation(), made.release("y", sequence=1)]
    found = list(replica.judge({leaf_hash(entry): open_entry(entry) for entry in entries}, TS).values())
    assert found[0][1] == (raw_public_key(key("builder1")),)
    signatures = Envelope.parse(entries[1]).signatures
    assert [key_id(public) for public in found[1][1]] == [signature.keyid for signature in signatures]
    assert [outcome.admissible for outcome, _ in found] == [True, True, False]
