"""How fast a whole log is audited, beside bare leaf hashes and Ed25519 verifications of the same entries.

Releases of one row each, a state entry after every 4096, as files in a folder. Both sizes give a line through
1,000,000. Run: ``.venv/bin/python benchmarks/bench_audit.py [JOBS [FEW MANY]]`` (default: the cores, 20,000
and 60,000).
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic import BUILDER, SETUP, entries
from quotary import ed25519
from quotary.client.audit import Auditor
from quotary.client.opener import Opener
from quotary.client.policy import Policy
from quotary.client.replay import proven_batches
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files, FolderSource
from quotary.garbage import collected_rarely
from quotary.statements.envelope import Envelope, pae, raw_public_key
from quotary.statements.f1 import F1
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.merkle import leaf_hash
from tests.fakes.authority import ORIGIN, TS, key
from tests.fakes.files import files_of
from tests.fakes.log import policy_bytes, policy_document

SIZE = 1_000_000
INTERVAL = 4096
BAR_SECONDS, BAR_HASHES, BAR_MIB = 120.0, 20.0, 512


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit took; memory in MiB, the sum of the processes' peaks."""

    seconds: float
    processor: float
    memory: float
    effective: int


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one log; ``processor``, ``bare_processor`` and MiB of ``memory`` are of all processes."""

    audit: float
    processor: float
    memory: float
    hashes: float
    bare_hashes: float
    bare_signatures: float
    bare_processor: float


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    few, many = map(int, sys.argv[2:4] or ("20000", "60000"))
    low, high = measure(few, jobs), measure(many, jobs)
    for name, bar in (
        ("audit", f"{BAR_SECONDS:.0f} s"),
        ("processor", f"{2 * BAR_SECONDS:.0f} s"),
        ("hashes", f"{BAR_HASHES:.0f} s, one process"),
        ("bare_hashes", "reference"),
        ("bare_signatures", f"reference, {jobs} processes"),
        ("bare_processor", "reference, both"),
    ):
        first, second = getattr(low, name), getattr(high, name)
        line = second + (second - first) / (many - few) * (SIZE - many)
        print(
            f"{name:<16} {few:,}: {few / first:,.0f}/s   {many:,}: {many / second:,.0f}/s   "
            f"by a line {SIZE:,}: {line:,.0f} s   bar {bar}"
        )
    reference = high.processor / high.bare_processor
    slope = (high.memory - low.memory) / (many - few)
    print(
        f"audit with {jobs} jobs takes {reference:.1f} x the processor of the bare work; peak memory of all "
        f"its processes {low.memory:.0f} and {high.memory:.0f} MiB, by a line {SIZE:,}: "
        f"{high.memory + slope * (SIZE - many):.0f} MiB, bar {BAR_MIB}; load {os.getloadavg()[0]:.1f}"
    )


def measure(count: int, jobs: int) -> Took:
    """Make a log, and audit it in the same run as the bare work."""
    logged = with_states(list(entries(count)))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for path, data in files_of(logged).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        document = policy_document(genesis=leaf_hash(logged[0]).hex())
        policy = Policy.parse(policy_bytes(document))
        files = Files(FolderSource(folder))
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            audited = alone.submit(_audit, folder, policy_bytes(document), jobs).result()
        assert audited.effective == count
        started = time.perf_counter()
        note = files.checkpoint()
        checkpoint = policy.tlog.verify(note).checkpoint
        assert sum(len(batch.entries) for batch in proven_batches(files, checkpoint, 0, note)) == len(logged)
        hashes = time.perf_counter() - started
    bare = bare_hashes(logged)
    signatures, verifying = bare_signatures(logged, jobs)
    return Took(
        audited.seconds, audited.processor, audited.memory, hashes, bare, signatures, bare + verifying
    )


def _audit(folder: Path, policy: bytes, jobs: int) -> Audited:
    """Audit in a process that holds nothing else."""
    before = sum(os.times()[:4])
    with ReplayStore(folder / "store", ORIGIN) as store, Opener(jobs) as opener, collected_rarely():
        started = time.perf_counter()
        auditor = Auditor(Policy.parse(policy), store, lambda done, size: None, opener)
        found = auditor.audit(Files(FolderSource(folder)))
        seconds = time.perf_counter() - started
        memory = sum(map(_peak, [os.getpid(), *(child.pid for child in active_children())]))
    return Audited(seconds, sum(os.times()[:4]) - before, memory, found.outcomes["effective"])


def _peak(process: int | None) -> float:
    """Give the peak of a process's memory in MiB; what ``getrusage`` says includes the parent's."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def with_states(statements: Sequence[bytes]) -> list[bytes]:
    """Put a state entry after every interval."""
    logged: list[bytes] = []
    f1, nodes, root, prev = F1(ORIGIN, verify=lambda *_: None), trie.MemoryStore(), trie.EMPTY, None
    for first in range(0, len(statements), INTERVAL):
        some = statements[first : first + INTERVAL]
        closed = f1.close(enumerate(some, len(logged)), TS)
        values = {name: hashlib.sha256(record).digest() for name, record in closed.changes.items()}
        root = trie.update(nodes, root, values)
        logged += some
        logged.append(StateEntry(len(logged), {"F1": root}, TS, prev).encode())
        prev = len(logged) - 1
    return logged


def bare_hashes(logged: Sequence[bytes]) -> float:
    """Seconds for one leaf hash and one node hash an entry."""
    started = time.perf_counter()
    for entry in logged:
        digest = hashlib.sha256(b"\x00" + entry).digest()
        hashlib.sha256(b"\x01" + digest + digest).digest()
    return time.perf_counter() - started


def bare_signatures(logged: Sequence[bytes], jobs: int) -> tuple[float, float]:
    """Seconds for one verification a release in as many processes, once they run, and of their processors."""
    opened = [Envelope.parse(entry) for entry in logged[SETUP:] if entry.startswith(b'{"payload"')]
    work = [(envelope.signatures[0].sig, pae(envelope.payload)) for envelope in opened]
    parts = [work[first : first + INTERVAL] for first in range(0, len(work), INTERVAL)]
    before = sum(os.times()[:4])
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        list(pool.map(_verify, [[]] * jobs))
        started = time.perf_counter()
        list(pool.map(_verify, parts))
        seconds = time.perf_counter() - started
    return seconds, sum(os.times()[:4]) - before


def _verify(part: Sequence[tuple[bytes, bytes]]) -> None:
    equation, public = ed25519.choose(ed25519.libsodium()), raw_public_key(key(BUILDER))
    for signature, message in part:
        equation(public, signature, message)


if __name__ == "__main__":
    main()
