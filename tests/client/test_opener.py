"""Entries opened in other processes: the same verdicts in the same order, and no process that is missed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest

from quotary.client.audit import Audited, Auditor
from quotary.client.finding import Finding
from quotary.client.opener import LEAST, Opener
from quotary.client.replay import Batch
from quotary.client.replay_store import ReplayStore
from quotary.client.source import CHECKPOINT, Files
from quotary.errors import CannotTell, InvalidSignature
from quotary.statements.envelope import Envelope, Signature, raw_public_key
from quotary.tlog.merkle import leaf_hash
from tests.client.test_audit import log_of, policy_of, with_state
from tests.fakes.authority import ORIGIN, TS, key
from tests.fakes.files import MemorySource, files_of, source_of
from tests.fakes.log import FakeLog, policy_bytes, policy_document
from tests.fakes.processes import ROOT, until

CHECKS = {
    "bundle": "entry bundle",
    "tile": "tile",
    "late": "entry bundle",
    "state": "map root",
    "both": "state",
}


def run(folder: Path, opener: Opener, log: FakeLog, source: MemorySource) -> Audited:
    with ReplayStore(folder, ORIGIN) as store:
        return Auditor(policy_of(log), store, lambda done, size: None, opener).audit(Files(source))


def mixed() -> FakeLog:
    """A log of several intervals and bundles, with entries that must not have effect among them."""
    log = log_of(releases=530, interval=70)
    good, other = (Envelope.parse(log.maker.release(seed)) for seed in ("forged", "other"))
    signature = Signature(good.signatures[0].keyid, other.signatures[0].sig)
    forged = Envelope(good.payload, (signature,)).encode()
    log.append(forged, log.maker.release("x", signers=["owner1"]), log.entries[4], log.maker.release("y"))
    log.close(TS + 600)
    return log


def findings() -> dict[str, tuple[FakeLog, MemorySource]]:
    """Logs that lie, each in another place of the second or third bundle or in what it commits to."""
    log = mixed()
    lies = {name: source_of(log) for name in ("bundle", "tile", "late")}
    lies["bundle"].files["tile/entries/001"] = lies["bundle"].files["tile/entries/001"][:-1]
    lies["tile"].files["tile/0/001"] = bytes(8192)
    changed = with_state(log, maps={"F1": bytes(32)})
    lies["state"] = MemorySource(files_of(changed))
    # Two lies: the first in the log must be the one that is found, though the second is read before.
    early = [*log.entries[:100], log.entries[100].replace(b"sig", b"gis"), *log.entries[101:]]
    early[74] = early[74].replace(b'"ts":', b'"tz":')
    lies["both"] = MemorySource(files_of(early))
    del lies["both"].files["tile/entries/001"]
    lies["late"].files[f"tile/entries/002.p/{len(log.entries) % 256}"] = b""
    return {name: (log, source) for name, source in lies.items()}


def test_a_log_is_judged_as_by_one_process(pair: Opener, tmp_path: Path) -> None:
    log = mixed()
    run(tmp_path / "first", pair, log, source_of(log))  # from here on its processes know the keys
    found = run(tmp_path / "two", pair, log, source_of(log))
    assert found == run(tmp_path / "one", Opener(1), log, source_of(log))
    assert dict(found.outcomes) == {"effective": 535, "invalid-signature": 1, "replay": 1, "threshold": 1}


@pytest.mark.parametrize(("name", "check"), CHECKS.items())
def test_a_lie_is_the_same_finding_as_by_one_process(
    pair: Opener, tmp_path: Path, name: str, check: str
) -> None:
    log, source = findings()[name]
    found = []
    for number, opener in enumerate((Opener(1), pair)):
        folder = tmp_path / str(number)
        with pytest.raises(Finding) as raised:
            run(folder, opener, log, source)
        with ReplayStore(folder, ORIGIN) as store:
            found.append((raised.value.encode(ORIGIN), store.progress()))
        honest = source_of(log)
        if source.files[CHECKPOINT] == honest.files[CHECKPOINT]:
            fresh = len(log.entries) - found[-1][1].frontier.size
            assert run(folder, opener, log, honest).fresh == fresh
    assert found[0] == found[1]
    assert raised.value.check == check


def test_a_source_that_breaks_off_leaves_what_came_before(pair: Opener, tmp_path: Path) -> None:
    log = mixed()
    cut = source_of(log)
    del cut.files["tile/entries/001"]
    with pytest.raises(CannotTell, match="tile/entries/001"):
        run(tmp_path, pair, log, cut)
    with ReplayStore(tmp_path, ORIGIN) as store:
        assert store.progress().frontier.size == 256
    assert run(tmp_path, pair, log, source_of(log)).fresh == len(log.entries) - 256


def test_what_was_opened_of_one_log_is_not_taken_for_another(tmp_path: Path) -> None:
    first, second = log_of(releases=300, interval=1000), log_of(releases=0)
    second.append(*(second.maker.release(f"other {number}") for number in range(5)))
    second.close(TS + 9)
    cut = source_of(first)
    del cut.files[f"tile/entries/001.p/{len(first.entries) - 256}"]
    with Opener(2, least=300) as opener:
        with pytest.raises(CannotTell):
            run(tmp_path / "first", opener, first, cut)
        assert opener._kept
        assert run(tmp_path / "second", opener, second, source_of(second)).map_root == second.map_root


def test_a_process_that_died_is_no_pass_and_the_next_run_goes_on(tmp_path: Path) -> None:
    log = mixed()
    with Opener(2, least=0) as opener:
        before = {child.pid for child in active_children()}
        run(tmp_path / "first", opener, log, source_of(log))
        for child in active_children():
            if child.pid not in before:
                child.kill()
        with pytest.raises(CannotTell, match="a process of this audit died; entry 0 "):
            run(tmp_path / "second", opener, log, source_of(log))
        assert run(tmp_path / "second", opener, log, source_of(log)).fresh == len(log.entries)


def test_processes_ignore_what_a_terminal_sends_to_all_of_them_and_end_when_they_are_told(
    tmp_path: Path,
) -> None:
    log = log_of(releases=1)
    before = set(active_children())
    with Opener(2, least=0) as opener:
        found = run(tmp_path / "first", opener, log, source_of(log))
        processes = set(active_children()) - before
        assert processes
        for process in processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        assert run(tmp_path / "second", opener, log, source_of(log)) == found
        assert set(active_children()) - before >= processes
    assert set(active_children()) == before


def test_a_run_that_goes_on_gives_the_processes_the_keys_that_it_needed(tmp_path: Path) -> None:
    log = log_of(releases=2)
    run(tmp_path, Opener(1), log, source_of(log))
    log.append(log.maker.release("later"))
    log.close(TS + 400)
    with Opener(2, least=0) as opener:
        run(tmp_path, opener, log, source_of(log))  # the delegation was read by the run before
        assert raw_public_key(key("builder1")) in opener._keys.values()


def test_only_the_very_key_signature_and_payload_that_held_are_not_verified_again(pair: Opener) -> None:
    log = mixed()
    entry = log.entries[4]
    envelope, public = Envelope.parse(entry), raw_public_key(key("builder1"))
    (signature,) = envelope.signatures
    pair.forget()
    pair.verify(public, signature, envelope.payload)
    hashes = (leaf_hash(entry),)
    batch = Batch(0, 4, (entry,), hashes, b"", b"")
    assert list(pair.ahead(iter([batch]), 1)) == [batch]
    assert pair._held[signature.sig] == (public, envelope.payload)
    assert pair.opened(4, b"not looked at").statement_id == envelope.statement_id
    for wrong in (
        (raw_public_key(key("owner1")), signature, envelope.payload),
        (public, Signature(signature.keyid, bytes(32) + signature.sig[32:]), envelope.payload),
        (public, signature, envelope.payload + b" "),
    ):
        with pytest.raises(InvalidSignature):
            pair.verify(*wrong)
    pair.settle(5)
    assert signature.sig not in pair._held
    assert pair.opened(4, b"").code == "malformed"


def test_an_audit_lets_go_of_what_its_processes_opened_with_each_interval(
    tmp_path: Path, pair: Opener
) -> None:
    pair.forget()
    log = log_of(releases=6, interval=2)
    run(tmp_path, pair, log, source_of(log))
    assert min(pair._kept, default=len(log.entries)) >= len(log.entries) - 1


def test_the_processes_verify_from_the_batch_on_that_follows_a_delegation() -> None:
    log = log_of(releases=6)
    public = raw_public_key(key("builder1"))
    first, release = log.entries[:4], log.entries[5]
    batches = [Batch(0, start, tuple(some), (), b"", b"") for start, some in ((0, first), (5, [release]))]
    envelope = Envelope.parse(release)
    with Opener(2, least=0) as opener:
        seen = []
        for _ in opener.ahead(iter(batches), 6):
            seen.append(opener._held.get(envelope.signatures[0].sig))
    assert seen == [None, (public, envelope.payload)]


def test_what_is_kept_and_asked_ahead_is_bounded(pair: Opener) -> None:
    pair.forget()
    entry = b"{" + b" " * 65_000
    asked = 0

    def endless() -> Iterator[Batch]:
        nonlocal asked
        while True:
            yield Batch(0, 256 * asked, (entry,) * 256, (), entry * 256, b"")
            asked += 1

    batches = pair.ahead(endless(), 1 << 20)
    for _ in range(4):
        next(batches)
    assert asked <= 6
    assert len(pair._kept) * len(entry) <= 1 << 25
    pair.forget()


def test_the_command_audits_with_the_processes_that_it_is_told(tmp_path: Path) -> None:
    log = log_of(releases=LEAST, interval=1000)
    copy, policy = tmp_path / "copy", tmp_path / "policy.json"
    for path, data in files_of(log.entries).items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(data)
    policy.write_bytes(policy_bytes(policy_document(genesis=log.genesis)))
    words = ["audit", str(copy), "--policy", str(policy), "--simulation", "--json", "--store"]
    made = []
    for jobs in ("1", "2"):
        command = [sys.executable, "-m", "quotary", *words, str(tmp_path / jobs), "--jobs", jobs]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True)
        made.append(json.loads(ran.stdout))
    assert made[0] == made[1]
    assert made[0]["outcomes"] == {"effective": LEAST + 4}


def test_processes_end_with_an_audit_that_was_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _ORPHANS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert len(children) == 2
    until(lambda: not any(map(_runs, children)), "the processes end")


_ORPHANS = """
import threading
from multiprocessing import active_children
from quotary.client.opener import Opener
from quotary.client.replay import Batch
opener = Opener(2, least=0)
batch = Batch(0, 0, (b"{}",), (), b"", b"")
list(opener.ahead(iter([batch] * 8), 8))
print(*[child.pid for child in active_children()], flush=True)
threading.Event().wait(60)
"""


def _runs(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
