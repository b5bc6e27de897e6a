"""Rounds of cosignatures against real witnesses, each an application in this process behind a fake network."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.errors import CannotTell
from quotary.net.transport import Reply
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.policy import TlogPolicy
from registry.backup import make_backup, restore_backup
from registry.errors import RolledBack
from registry.export import Exporter
from registry.identity import create_log_keys, load_log_keys, read_public
from registry.memory import keep, recall
from registry.public import PublicLog
from registry.recover import Folder, recover_log
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Local
from tests.fakes.network import URLS, Network, witnessed


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def log(tmp_path: Path, network: Network) -> Iterator[Local]:
    """A log with three witnesses, two of which must cosign."""
    with witnessed(tmp_path, network) as found:
        yield found


def policy_of(log: Local) -> TlogPolicy:
    return TlogPolicy.parse(log.config.policy.read_text("utf-8"))


def cosigners(log: Local) -> set[str]:
    published = log.store.read.published()
    assert published is not None
    return set(policy_of(log).verify(published.note).cosignatures)


def grow(log: Local, *entries: bytes) -> int:
    log.append(*entries)
    return log.store.read.published_size()


def test_all_witnesses_cosign_and_the_note_verifies_under_the_policy(log: Local) -> None:
    assert log.store.read.published_size() == 2
    assert cosigners(log) == {"w0.example.org", "w1.example.org", "w2.example.org"}


def test_one_silent_witness_of_three_does_not_stop_publishing(log: Local, network: Network) -> None:
    network.away = {URLS[0]}
    assert grow(log, log.authority.allocation()) == 4
    assert cosigners(log) == {"w1.example.org", "w2.example.org"}


def test_without_a_quorum_the_log_grows_and_publishes_nothing_until_it_is_back(
    log: Local, network: Network
) -> None:
    network.away = {URLS[0], URLS[1]}
    assert grow(log, log.authority.allocation()) == 2
    signed = log.store.read.signed()
    assert signed is not None
    assert signed.size == 4
    network.away = set()
    log.publisher.retry_now()
    assert grow(log) == 4


def test_a_witness_that_missed_rounds_is_brought_up_with_a_proof(log: Local, network: Network) -> None:
    network.away = {URLS[0]}
    made = log.authority
    grow(log, made.allocation())
    grow(log, made.delegation())
    network.away = set()
    assert grow(log, made.release("r1")) == 8
    assert "w0.example.org" in cosigners(log)


def test_a_line_that_the_witness_did_not_make_is_left_out(log: Local, network: Network) -> None:
    line = "\u2014 w0.example.org AAAAAAAAAAAAAAAAAAAA\n".encode()
    for body in (line, b"nonsense", b"", b"\xff", line * 200):
        network.instead = {URLS[0]: Reply(200, {}, body)}
        log.publisher.retry_now(refresh=True)
        log.loop.round()
        assert cosigners(log) == {"w1.example.org", "w2.example.org"}


@pytest.mark.parametrize("body", [b"", b"x\n", b"-1\n", b"01\n", b"9" * 5000, b"\xff\n", "\u0661\n".encode()])
def test_a_conflict_without_a_size_counts_as_silence(log: Local, network: Network, body: bytes) -> None:
    network.instead = {URLS[0]: Reply(409, {"content-type": "text/x.tlog.size"}, body)}
    assert grow(log, log.authority.allocation()) == 4


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_a_refusal_counts_as_silence(log: Local, network: Network, status: int) -> None:
    network.instead = {URLS[0]: Reply(status, {}, b"no\n")}
    assert grow(log, log.authority.allocation()) == 4
    assert cosigners(log) == {"w1.example.org", "w2.example.org"}


AHEAD = Reply(409, {"content-type": "text/x.tlog.size"}, b"99\n")
OTHER = Reply(422, {}, b"another root\n")
SUBMIT, SHOWN = (
    f"{URLS[0]}/add-checkpoint",
    f"{URLS[0]}/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint",
)


def note_of(log: Local, size: int, *, strangers: bool = False) -> bytes:
    """A checkpoint of another history, by the log's own keys or by keys that only share its name."""
    if strangers:
        folder = log.config.folder.parent / "strangers"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        keys = create_log_keys(folder, ORIGIN)
    else:
        keys = load_log_keys(log.config.keys, ORIGIN)
    return sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), keys.signing, 1)


@pytest.mark.parametrize(("reply", "size"), [(AHEAD, 99), (OTHER, 99)])
def test_a_witness_that_shows_a_larger_log_of_ours_stops_the_log(
    log: Local, network: Network, reply: Reply, size: int
) -> None:
    network.instead = {SUBMIT: reply, SHOWN: Reply(200, {}, note_of(log, size))}
    entry = log.authority.allocation()
    with pytest.raises(
        RolledBack, match=r"size at witness https://w0\.example\.org: found 99, wanted at most 4"
    ):
        grow(log, entry)
    with pytest.raises(RolledBack):
        log.publisher.check_witnesses(ORIGIN)


@pytest.mark.parametrize("reply", [AHEAD, OTHER])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_witness_that_shows_another_history_of_ours_stops_the_log(
    log: Local, network: Network, reply: Reply, size: int
) -> None:
    network.instead = {SUBMIT: reply, SHOWN: Reply(200, {}, note_of(log, size))}
    entry = log.authority.allocation()
    with pytest.raises(RolledBack, match=f"root of size {size} at witness"):
        grow(log, entry)


@pytest.mark.parametrize("reply", [AHEAD, OTHER])
def test_a_claim_that_a_witness_cannot_back_makes_it_faulty_and_the_log_goes_on(
    log: Local, network: Network, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    shown = [
        Reply(404, {}, b""),
        Reply(500, {}, b""),
        Reply(200, {}, b"nonsense"),
        Reply(200, {}, note_of(log, 99, strangers=True)),
        Reply(200, {}, note_of(log, 99).replace(b"\n99\n", b"\n98\n")),
        Reply(200, {}, note_of(log, 0)),
    ]
    for answer in shown:
        network.instead = {SUBMIT: reply, SHOWN: answer}
        caplog.clear()
        log.publisher.retry_now(refresh=True)
        log.loop.round()
        assert cosigners(log) == {"w1.example.org", "w2.example.org"}
        assert "witness.faulty" in [record.message for record in caplog.records]
        log.publisher.check_witnesses(ORIGIN)
    network.instead = {SUBMIT: reply}
    assert grow(log, log.authority.allocation()) == 4
    assert cosigners(log) == {"w1.example.org", "w2.example.org"}


def test_faulty_witnesses_are_no_quorum(log: Local, network: Network) -> None:
    network.instead = {f"{url}/add-checkpoint": AHEAD for url in URLS[:2]}
    assert grow(log, log.authority.allocation()) == 2
    network.instead = {}
    log.publisher.retry_now()
    assert grow(log) == 4
    network.instead = {f"{url}/add-checkpoint": AHEAD for url in URLS}
    with pytest.raises(CannotTell, match="none of 3 witnesses"):
        log.publisher.check_witnesses(ORIGIN)


def test_before_the_first_signature_one_witness_must_have_answered(log: Local, network: Network) -> None:
    network.away = {URLS[0], URLS[1]}
    log.publisher.check_witnesses(ORIGIN)
    network.away = set(URLS)
    with pytest.raises(CannotTell, match="none of 3 witnesses"):
        log.publisher.check_witnesses(ORIGIN)


def test_a_new_log_asks_whether_a_witness_knows_it_already(
    tmp_path: Path, log: Local, network: Network
) -> None:
    checked = log.rounds
    path = hashlib.sha256(ORIGIN.encode()).hexdigest()
    with pytest.raises(RolledBack, match="found 2, wanted none"):
        checked.check_unknown(ORIGIN)
    assert ("GET", f"{URLS[0]}/{path}/checkpoint") in network.asked
    checked.check_unknown("log.example.org/other")
    network.instead = {SHOWN: Reply(200, {}, note_of(log, 7, strangers=True))}
    with pytest.raises(RolledBack, match="found 2, wanted none"):
        checked.check_unknown(ORIGIN)
    network.instead = {url: Reply(500, {}, b"") for url in URLS}
    with pytest.raises(CannotTell):
        checked.check_unknown("log.example.org/other")
    assert read_public(log.config.keys / "public").log == policy_of(log).logs


def test_neither_a_backup_nor_a_mirror_behind_a_witness_comes_back(
    tmp_path: Path, log: Local, network: Network
) -> None:
    make_backup(log.config, tmp_path / "backup")
    mirror = tmp_path / "mirror"
    Exporter(PublicLog(log.store.read), mirror).export_all()
    memory = recall(log.config.keys / "signed-head.json")
    grow(log, log.authority.allocation())
    log.store.close()
    keep(log.config.keys / "signed-head.json", memory)
    with pytest.raises(RolledBack, match="wanted at least 4, seen at witness"):
        restore_backup(log.config, tmp_path / "backup", network)
    with pytest.raises(RolledBack, match=r"size at witness .* found 4, wanted at most the mirror's 2"):
        recover_log(log.config, Folder(mirror), network, True)
    network.away = set(URLS)
    with pytest.raises(CannotTell, match="none of 3 witnesses"):
        restore_backup(log.config, tmp_path / "backup", network)
    with pytest.raises(CannotTell, match="no witness answers"):
        recover_log(log.config, Folder(mirror), network, False)


def test_what_no_witness_has_seen_may_be_forgotten_when_all_of_them_say_so(
    tmp_path: Path, log: Local, network: Network
) -> None:
    mirror = tmp_path / "mirror"
    Exporter(PublicLog(log.store.read), mirror).export_all()
    network.away = set(URLS)
    assert grow(log, log.authority.allocation()) == 2
    log.store.close()
    network.away = {URLS[2]}
    for forget in (False, True):
        with pytest.raises(RolledBack, match="size at the signer: found 4"):
            recover_log(log.config, Folder(mirror), network, forget)
    network.away = set()
    assert recover_log(log.config, Folder(mirror), network, True).published == 2
    assert recall(log.config.keys / "signed-head.json").size == 2


def test_a_memory_older_than_a_witness_is_not_trusted_with_a_backup(
    tmp_path: Path, log: Local, network: Network
) -> None:
    memory = recall(log.config.keys / "signed-head.json")
    grow(log, log.authority.allocation())
    make_backup(log.config, tmp_path / "backup")
    Exporter(PublicLog(log.store.read), tmp_path / "mirror").export_all()
    log.store.close()
    keep(log.config.keys / "signed-head.json", memory)
    with pytest.raises(RolledBack, match="the signer's memory: found size 2, wanted at least 4"):
        restore_backup(log.config, tmp_path / "backup", network)
    (log.config.keys / "signed-head.json").unlink()
    recover_log(log.config, Folder(tmp_path / "mirror"), network, False)
    assert recall(log.config.keys / "signed-head.json").size == 4
