"""Bars A21 to A23: quorums that break and come back, a log behind its witnesses, clocks that jump."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.net.transport import Reply, Request
from quotary.statements.state_entry import StateEntry
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.note import Note
from registry.errors import ClockRefused, RolledBack
from registry.identity import load_log_keys
from registry.witness_app import create_app
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Clock, Local, local
from tests.fakes.network import URLS, Network, create_witnessed
from tests.fakes.processes import until

SHOWN = hashlib.sha256(ORIGIN.encode()).hexdigest() + "/checkpoint"
DAY = 86_400


class Ahead(Network):
    """Has three witnesses with a clock of their own; one of ``ahead`` shows a larger log, when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: dict[str, bytes] = {}
        self.gate = threading.Event()

    def send(self, request: Request) -> Reply:
        url = next(url for url in URLS if request.url.startswith(url))
        if url not in self.ahead:
            return super().send(request)
        self.gate.wait(10)
        if request.url.endswith(SHOWN):
            return Reply(200, {}, self.ahead[url])
        return Reply(409, {"content-type": "text/x.tlog.size"}, b"99\n")


@pytest.fixture
def network() -> Ahead:
    return Ahead()


@pytest.fixture
def log(tmp_path: Path, network: Ahead) -> Iterator[Local]:
    """A log with three witnesses, two of which must cosign; its clock is not theirs."""
    create_witnessed(tmp_path, network)
    with local(tmp_path, transport=network) as found:
        found.publisher.check_witnesses(ORIGIN)
        found.loop.round()
        yield found


def forward(log: Local, network: Ahead, seconds: float) -> None:
    """Let time go by everywhere."""
    log.clock.forward(seconds)
    network.clock.forward(seconds)


def quorum_held(log: Local) -> float | None:
    return log.meters.registry.get_sample_value("quotary_quorum_held")


def log_times(log: Local) -> list[int]:
    """Every time that the log itself has put under a signature: of its state entries, in their order."""
    head = log.store.read.head()
    assert head is not None
    entries = log.store.read.entries(0, head.size)
    return [StateEntry.parse(entry).ts for entry in entries if b'"type":"state"' in entry]


def signed_times(log: Local) -> list[int]:
    """The times in the log's own ML-DSA-44 signatures, in the order of the sizes."""
    keys = [key.verifier for key in load_log_keys(log.config.keys, ORIGIN).signing]
    found = [Note.parse(signed.note).verify(keys) for signed in log.store.read.all_signed()]
    return [time for times in found for many in times.values() for time in many]


def test_a21_without_its_quorum_a_log_publishes_nothing_says_so_and_comes_back_by_itself(
    log: Local, network: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    assert quorum_held(log) == 1
    network.away = {URLS[0], URLS[1]}
    before = log.store.read.published_size()
    log.append(log.authority.allocation())
    assert log.store.read.published_size() == before
    assert quorum_held(log) == 0
    assert "quorum.missing" in [record.message for record in caplog.records]
    network.away = set()

    def published() -> bool:
        log.loop.round()
        return log.store.read.published_size() > before

    until(published, "the log publishes again", 5.0)
    assert quorum_held(log) == 1


def ahead(log: Local) -> bytes:
    keys = load_log_keys(log.config.keys, ORIGIN)
    return sign_checkpoint(Checkpoint(ORIGIN, 99, bytes(32)), keys.signing, 1)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("late", [False, True])
def test_a22_a_witness_that_is_ahead_stops_the_log_before_its_next_signature(
    log: Local, network: Ahead, url: str, late: bool
) -> None:
    network.ahead = {url: ahead(log)}
    entry = log.authority.allocation()
    if late:
        # It answers only when the others have made the quorum and the round is over.
        log.append(entry)
        network.gate.set()
        until(lambda: log.rounds.idle(), "the late witness has answered")
    else:
        network.gate.set()
        with pytest.raises(RolledBack, match="found 99"):
            log.append(entry)
    # The process ends with that; the next one asks before it signs.
    signed, next_entry = log.signer.head().size, log.authority.delegation()
    with pytest.raises(RolledBack, match="found 99"):
        log.append(next_entry) if late else log.publisher.check_witnesses(ORIGIN)
    assert log.signer.head().size == signed


JUMPS = {"ten days back": -10 * DAY, "an hour back": -3600, "61 s back": -61, "two days ahead": 2 * DAY}


@pytest.mark.parametrize("jump", JUMPS)
def test_a23_a_clock_that_jumps_stops_the_log_until_it_is_right_again(
    log: Local, network: Ahead, jump: str, caplog: pytest.LogCaptureFixture
) -> None:
    log.append(log.authority.allocation())
    before = log.store.read.head()
    log.clock.jump(JUMPS[jump])
    log.append(log.authority.delegation())
    log.loop.round()
    assert log.store.read.head() == before
    assert {record.__dict__.get("kind") for record in caplog.records} >= {"ClockRefused"}
    log.clock.jump(-JUMPS[jump])
    forward(log, network, 1)
    log.publisher.retry_now()
    log.loop.round()
    assert log.store.read.published_size() > (before.size if before else 0)
    assert log_times(log) == sorted(log_times(log))
    assert signed_times(log) == sorted(signed_times(log))


@pytest.mark.parametrize("seconds", [-5, -59, 0, 5])
def test_a23_a_clock_that_is_a_little_off_is_clamped(log: Local, network: Ahead, seconds: int) -> None:
    log.append(log.authority.allocation())
    log.clock.jump(seconds)
    log.append(log.authority.delegation())
    assert log.store.read.published_size() == 6
    assert log_times(log) == sorted(log_times(log))
    assert signed_times(log) == sorted(signed_times(log))
    assert len(signed_times(log)) == 3


def test_a23_a_clock_that_stands_still_stops_the_log(log: Local, network: Ahead) -> None:
    network.clock.forward(61)
    log.clock.elapsed += 61
    log.append(log.authority.allocation())
    assert log.store.read.published_size() == 2
    log.clock.jump(61)
    log.publisher.retry_now()
    log.loop.round()
    assert log.store.read.published_size() == 4


def test_a23_a_machine_that_slept_hears_the_witnesses_and_goes_on(log: Local, network: Ahead) -> None:
    """Its kernel counted no seconds; its clock was set right when it woke."""
    network.clock.forward(DAY)
    log.clock.jump(DAY)
    entry = log.authority.allocation()
    log.append(entry)
    assert log.store.read.published_size() == 2
    log.publisher.retry_now()
    log.loop.round()
    assert log.store.read.published_size() == 4


@pytest.mark.parametrize("seconds", [2 * DAY, -3600])
def test_a23_before_the_first_signature_the_witnesses_are_asked_for_the_time(
    log: Local, seconds: int, network: Ahead
) -> None:
    log.clock.jump(seconds)
    with pytest.raises(ClockRefused, match="the witnesses"):
        log.publisher.check_witnesses(ORIGIN)


def test_a23_one_witness_alone_does_not_move_the_clock(log: Local, network: Ahead) -> None:
    liar = Clock()
    liar.jump(2 * DAY)
    folder = log.config.folder.parent / URLS[0][8:]
    network.apps[URLS[0]] = create_app(str(folder), liar).test_client()
    forward(log, network, 10)
    log.append(log.authority.allocation())
    assert log.store.read.published_size() == 4
