"""Rotating the log's keys in process: each step, again after a crash in it, and out of turn."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from quotary.errors import InvalidSignature, Malformed, Refused, Rejected
from quotary.net.transport import Offline
from quotary.statements.order import KeyRotation, Order
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from registry import rotation
from registry.doctor import examine
from registry.fsck import check_store
from registry.identity import read_public, signing_files
from registry.looks import Surroundings
from registry.sequence import renewed
from tests.fakes import hsm
from tests.fakes.authority import DAY, NOW, ORIGIN, key
from tests.fakes.inprocess import Local, local

BOTH = ("ed25519", "ml-dsa-44")
OVERLAP = 90 * DAY


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


def policy_of(log: Local) -> TlogPolicy:
    return TlogPolicy.parse(log.config.policy.read_text("utf-8"))


def note_of(log: Local) -> bytes:
    published = log.store.read.published()
    assert published is not None
    return published.note


def begun(log: Local, types: tuple[str, ...] = BOTH) -> Order:
    """New keys sign, and two roots signed the order."""
    draft = rotation.begin(log.config, types, OVERLAP, log.clock.at)
    log.signer.reload()
    return draft.signed_by([key("root1"), key("root2")])


def rotated(log: Local, types: tuple[str, ...] = BOTH) -> Order:
    """The order is published and adopted."""
    order = begun(log, types)
    log.append(order.encode())
    rotation.adopt(log.config, order, log.store.read)
    return order


def follow(log: Local, before: TlogPolicy) -> TlogPolicy:
    return renewed(log.config, before, log.publisher)


def wrong(log: Local) -> dict[str, str]:
    found = examine(log.config, Surroundings(Offline(), log.clock))
    return {look.name: look.problem for look in found if look.state == "wrong" and "key" in look.name}


def test_policies_that_list_old_or_new_keys_accept_every_checkpoint_of_the_overlap(log: Local) -> None:
    old = policy_of(log)
    rotated(log)
    new = follow(log, old)
    assert not set(old.logs) & set(new.logs)
    for policy in (old, new):
        assert policy.verify(note_of(log)).checkpoint.size == 4
    log.append(log.authority.allocation())
    assert len(Note.parse(note_of(log)).signatures) == 4
    log.clock.forward(OVERLAP.total_seconds())
    assert rotation.retire(log.config, log.clock.at) == ("log-ed25519.pem", "log-mldsa44.pem")
    log.signer.reload()
    rotation.close(log.config)
    log.append(log.authority.delegation())
    assert new.verify(note_of(log)).checkpoint.size == log.store.read.published_size() == 8
    with pytest.raises(InvalidSignature, match="no known key signed"):
        old.verify(note_of(log))
    assert check_store(log.store.read, ORIGIN, new).published == 8


def test_one_of_the_two_keys_can_be_rotated_alone(log: Local) -> None:
    old = policy_of(log)
    order = rotated(log, ("ed25519",))
    assert isinstance(order.content, KeyRotation)
    new = follow(log, old)
    assert new.logs == (order.content.add[0], old.logs[1])
    assert len(Note.parse(note_of(log)).signatures) == 3


def test_workers_and_doctor_agree_at_every_step(log: Local) -> None:
    client, before = log.client(), policy_of(log)
    assert wrong(log) == {}
    order = begun(log)
    assert wrong(log) == {}
    log.append(order.encode())
    rotation.adopt(log.config, order, log.store.read)
    assert wrong(log) == {}
    shown = client.get("/api/v1/log").get_json()
    assert shown["vkeys"] == [found.vkey() for found in policy_of(log).logs]
    assert shown["vkeys"] != [found.vkey() for found in before.logs]


def test_a_rotation_can_be_begun_again_and_makes_no_second_keys(log: Local) -> None:
    first, again = begun(log), begun(log)
    assert first == again
    assert len(signing_files(log.config.keys)) == 4
    log.append(first.encode())
    for _ in range(2):
        rotation.adopt(log.config, first, log.store.read)
    with pytest.raises(Refused, match="rotation: found one that ends at"):
        rotation.begin(log.config, BOTH, OVERLAP, log.clock.at)


def test_the_old_keys_are_not_retired_before_the_overlap_is_over(log: Local) -> None:
    with pytest.raises(Refused, match="rotation: found none"):
        rotation.retire(log.config, NOW)
    begun(log)
    with pytest.raises(Refused, match="rotation: found none"):
        rotation.retire(log.config, NOW + OVERLAP)
    log.append(order := begun(log).encode())
    rotation.adopt(log.config, Order.parse(order), log.store.read)
    with pytest.raises(Refused, match="overlap: found the time"):
        rotation.retire(log.config, NOW + OVERLAP - timedelta(seconds=1))
    assert len(rotation.retire(log.config, NOW + OVERLAP)) == 2
    assert rotation.retire(log.config, NOW + OVERLAP) == ()
    (log.config.keys / "rotation.json").write_bytes(b"{}")
    with pytest.raises(Malformed):
        rotation.retire(log.config, NOW + OVERLAP)


def test_a_second_rotation_takes_the_next_names(log: Local) -> None:
    before = policy_of(log)
    rotated(log)
    rotation.retire(log.config, NOW + OVERLAP)
    log.signer.reload()
    rotation.close(log.config)
    before = follow(log, before)
    rotated(log)
    assert signing_files(log.config.keys) == tuple(
        f"log-{kind}-{number}.pem" for number in (2, 3) for kind in ("ed25519", "mldsa44")
    )
    assert follow(log, before).verify(note_of(log))


def test_keys_whose_signatures_are_not_published_yet_are_not_adopted(log: Local) -> None:
    order, before = begun(log), policy_of(log)
    with pytest.raises(InvalidSignature, match="no known key"):
        rotation.adopt(log.config, order, log.store.read)
    assert policy_of(log) == before
    assert set(read_public(log.config.keys / "public").log) == set(before.logs)


def test_new_keys_that_the_roots_did_not_sign_for_are_not_announced(log: Local) -> None:
    from registry.orders import check

    draft = rotation.begin(log.config, BOTH, OVERLAP, NOW).signed_by([key("root1")])
    with pytest.raises(Rejected, match="1 signatures by roots"):
        check(log.store.read, ORIGIN, draft.encode(), int(NOW.timestamp()))
    log.append(draft.encode())
    assert log.store.read.find(leaf_hash(draft.encode())) is None


def test_a_policy_that_cannot_be_read_changes_nothing(log: Local, caplog: pytest.LogCaptureFixture) -> None:
    before = policy_of(log)
    log.config.policy.write_text("nonsense\n")
    assert follow(log, before) == before
    assert caplog.records[-1].getMessage() == "policy.ignored"


def test_a_key_in_a_token_gives_way_to_the_next_one_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = hsm.new_token(tmp_path / "hsm", monkeypatch)
    with local(tmp_path, token=place) as log:
        log.loop.round()
        old = policy_of(log)
        draft = rotation.begin(log.config, ("ed25519",), OVERLAP, NOW, place)
        assert signing_files(log.config.keys)[-1] == "log-ed25519-2.token"
        log.signer.reload()
        log.append((order := draft.signed_by([key("root1"), key("root2")])).encode())
        rotation.adopt(log.config, order, log.store.read)
        for policy in (old, follow(log, old)):
            assert policy.verify(note_of(log)).checkpoint.size == 4
