"""What a verifier pays: the command, one bundle, one judgement, each beside a reference of the same run.

Run: ``.venv/bin/python benchmarks/bench_client.py``
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.client.verify import verify_bundle
from quotary.tlog.note import Note
from tests.fakes.attempt import Attempt
from tests.fakes.gpus import GPUs, nvidia_vendor
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World, hardware


def median_ms(work: Callable[[], object], runs: int, warm: int = 3) -> float:
    """Median wall time in milliseconds."""
    times = []
    for number in range(runs + warm):
        before = time.perf_counter()
        work()
        if number >= warm:
            times.append((time.perf_counter() - before) * 1000)
    return statistics.median(times)


def show(what: str, found: float, reference: str, other: float, bar: str) -> None:
    print(f"{what:<44} {found:8.2f} ms   {found / other:6.2f} x {reference} ({other:.2f} ms)   bar {bar}")


def started(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)


def main() -> None:
    command = [str(Path(sys.executable).with_name("quotary")), "--help"]
    bare = [sys.executable, "-c", "import click"]
    found, bare_start = (median_ms(lambda words=words: started(words), 15) for words in (command, bare))
    show("quotary --help", found, "python -c 'import click'", bare_start, "150 ms")
    with tempfile.TemporaryDirectory() as folder:
        world = World(*hardware(Path(folder))).publish()
        attempt = Attempt.of(world)
        policy = Policy.parse(policy_bytes(attempt.policy))
        data = attempt.bundle.encode()
        note = Note.parse(attempt.bundle.checkpoint)
        keys = [*policy.tlog.logs, *(witness.key for witness in policy.tlog.witnesses.values())]
        signatures = median_ms(lambda: note.verify(keys), 200)
        clock = FixedClock(world.now)
        bundle = median_ms(
            lambda: verify_bundle(data, world.measurement, policy, ProcessMemory(), clock), 200
        )
        show("bundle, offline, warm", bundle, "its checkpoint's signatures alone", signatures, "10 ms")
        attempt.judge()

        def whole() -> None:
            attempt.memory = ProcessMemory()
            attempt.judge()

        show(
            "whole judgement (14 steps, TDX evidence)",
            median_ms(whole, 100),
            "the bundle alone",
            bundle,
            "200 ms",
        )
        one, twelve = composite(Path(folder), 1, 0), composite(Path(folder), 8, 4)
        show("the same with 8 GPUs and 4 switches", twelve, "the same with one GPU", one, "150 ms")


def composite(folder: Path, gpus: int, switches: int) -> float:
    """Processor time of a judgement with devices; every certificate, manifest and answer is verified anew."""
    world = World(*hardware(folder), gpus=GPUs.of(nvidia_vendor(folder), gpus, switches)).publish()
    attempt, took = Attempt.of(world), []
    for _ in range(20):
        attempt.memory = ProcessMemory()
        started = time.process_time()
        attempt.judge()
        took.append(1000 * (time.process_time() - started))
    return statistics.median(took)


if __name__ == "__main__":
    main()
