"""Six lies of a log, each really told with the log's own keys: the audit and the monitor name every one of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quotary.client.audit import Auditor
from quotary.client.finding import Finding
from quotary.client.monitor import Looked, Monitor
from quotary.client.opener import Opener
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import CHECKPOINT, Files
from quotary.client.watch import Watch
from quotary.errors import Refused
from quotary.statements.records import MeasurementRecord, parse_record
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from tests.client.test_monitor import watch_of
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.files import MemorySource, files_of
from tests.fakes.log import FakeLog, policy_bytes, policy_document

Shown = dict[str, bytes]
quiet: Callable[[int, int], None] = lambda done, size: None  # noqa: E731


def honest() -> FakeLog:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation(), log.maker.release("a"))
    log.close()
    return log


@dataclass(frozen=True, slots=True)
class Lie:
    """What was shown first, what is shown then, what a peer shows, and when."""

    first: Shown
    then: Shown
    peers: Sequence[Shown] = ()
    late: int = 0


def split_view(log: FakeLog) -> Lie:
    """Others are shown a release that we are not, at the same size."""
    other = FakeLog(now=log.maker.now)
    other.append(other.maker.genesis(), other.maker.allocation(), other.maker.delegation())
    other.append(other.maker.release("backdoor"))
    other.close()
    first = files_of(log.entries)
    return Lie(first, first, [files_of(other.entries)])


def rollback(log: FakeLog) -> Lie:
    """A revocation was shown, and then the log of before it again."""
    before = files_of(log.entries)
    log.append(log.maker.revocation(["a"]))
    log.close()
    return Lie(files_of(log.entries), before)


def frozen(log: FakeLog) -> Lie:
    """The log of an hour ago is shown as the newest."""
    files = files_of(log.entries)
    return Lie(files, files, late=3600)


def forged_map(log: FakeLog) -> Lie:
    """A map root that no entries give is committed and signed."""
    first = files_of(log.entries)
    log.append(log.maker.release("b"))
    log.close()
    state = StateEntry.parse(log.entries[-1])
    forged = replace(state, maps={"F1": b"\x11" * 32}).encode()
    return Lie(first, files_of([*log.entries[:-1], forged]))


def un_revocation(log: FakeLog) -> Lie:
    """A revoked measurement is active again in the map that is committed."""
    key = next(key for key, data in log.records.items() if isinstance(parse_record(data), MeasurementRecord))
    active = trie.lookup(log.nodes, log.map_root, key)
    assert active is not None
    log.append(log.maker.revocation(["a"]))
    log.close()
    first = files_of(log.entries)
    log.append(log.maker.release("b"))
    log.close()
    root = trie.insert(log.nodes, log.map_root, key, active)
    state = StateEntry.parse(log.entries[-1])
    return Lie(first, files_of([*log.entries[:-1], replace(state, maps={"F1": root}).encode()]))


def withheld(log: FakeLog) -> Lie:
    """A revocation is shown to others, and never to us."""
    first = files_of(log.entries)
    log.append(log.maker.revocation(["a"]))
    log.close()
    return Lie(first, first, [files_of(log.entries)])


LIES: dict[str, tuple[Callable[[FakeLog], Lie], str, str]] = {
    "split view": (split_view, "contradiction", "fork"),
    "rollback": (rollback, "contradiction", "rollback"),
    "frozen log": (frozen, "stale", ""),
    "forged map root": (forged_map, "contradiction", "map root"),
    "un-revocation": (un_revocation, "contradiction", "map root"),
    "withheld entry": (withheld, "refused", "checkpoint at hand"),
}


def policy_of(log: FakeLog) -> Policy:
    return Policy.parse(policy_bytes(policy_document(genesis=log.genesis)))


def look(log: FakeLog, folder: Path, watch: Watch, lie: Lie, shown: Shown) -> Looked:
    at = datetime.fromtimestamp(TS, UTC) + timedelta(seconds=lie.late if shown is lie.then else 0)
    peers = lie.peers if shown is lie.then else ()
    with ReplayStore(folder, ORIGIN) as store:
        monitor = Monitor(policy_of(log), watch, store, (), lambda: at, quiet, Opener(1))
        return monitor.look(Files(MemorySource(shown)), [Files(MemorySource(peer)) for peer in peers])


@pytest.mark.parametrize("name", LIES)
def test_the_monitor_names_the_lie(name: str, tmp_path: Path) -> None:
    make, condition, check = LIES[name]
    log = honest()
    lie = make(log)
    assert look(log, tmp_path, watch_of(), lie, dict(lie.first)).conditions == {}
    looked = look(log, tmp_path, watch_of(), lie, lie.then)
    assert condition in looked.conditions
    if check:
        assert isinstance(looked.error, Finding | Refused)
        assert looked.error.check == check
    assert (condition, "begins") in [
        (found.document["event"], found.document["state"]) for found in looked.alerts
    ]


@pytest.mark.parametrize("name", [name for name, (_, _, check) in LIES.items() if check])
def test_the_audit_ends_with_the_lie(name: str, tmp_path: Path) -> None:
    make, _, check = LIES[name]
    log = honest()
    lie = make(log)
    with ReplayStore(tmp_path, ORIGIN) as store:
        auditor = Auditor(policy_of(log), store, quiet)
        auditor.audit(Files(MemorySource(lie.first)))
        with pytest.raises(Finding if LIES[name][1] == "contradiction" else Refused) as caught:
            auditor.audit(Files(MemorySource(lie.then)), [peer[CHECKPOINT] for peer in lie.peers])
    assert isinstance(caught.value, Finding | Refused)
    assert caught.value.check == check
