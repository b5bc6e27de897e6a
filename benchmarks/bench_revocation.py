"""From a revocation that is sent to the log until the enclave admits nobody.

Run: ``.venv/bin/python benchmarks/bench_revocation.py [--tenth 200] [--real 5] [--together 20]``: 200 runs at
a tenth of the real intervals and 5 at the real ones. A real registry with signer and witness, as separate
processes; enclaves with the real boot check, watcher and lifecycle (their model answers nothing), each of a
measurement of its own, in this process. A run begins before the revocation is posted and ends with the first
admission that is refused as ``measurement_revoked``. Real settings are a poll every 30 s, a fifth earlier or
later, and publication once a second; bar: p99 of 60 s, 6 s at a tenth.
"""

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from enclave.boot import Machine, Setup
from enclave.device import DeviceEvidence, Evidence
from enclave.lifecycle import NotServing
from enclave.runtime import Enclave, Terms
from enclave.watch import Watcher
from quotary.canonical import canonical
from quotary.client.clock import SystemClock
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.net.transport import HTTP
from quotary.tlog.merkle import leaf_hash
from simulator.tdx import Platform
from tests.fakes import authority
from tests.fakes.machine import FLOOR, PRODUCT, hardware, registers
from tests.fakes.processes import Log, start_log

POLL_SECONDS, PUBLISH_SECONDS, BAR_SECONDS = 30, 1.0, 60.0
SERVICE = authority.SERVICE
DEADLINE_SECONDS = 300.0


class Silent:
    """A model that is never asked."""

    context_length, rows, vocabulary = 8, 1, 8
    end_ids: frozenset[int] = frozenset()
    kernel: dict[str, int | str] = {}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class Told:
    """A simulated machine that runs the row of a seed."""

    platform: Platform
    seed: str

    def quote(self, report_data: bytes) -> Evidence:
        return Evidence(self.platform.quote(registers(self.seed), report_data), self.platform.collateral)

    def devices(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        raise NotImplementedError


def policy_of(log: Log, root: bytes) -> Policy:
    """What clients and enclaves of this log demand."""
    owners = {"keys": authority.keys("owner1", "owner2", "owner3"), "threshold": 2}
    require = {"debug": "refused"}
    document = {
        "v": 1, "environment": "simulation", "tlog_policy": log.policy_text,
        "genesis": leaf_hash(log.get("/api/v1/entries/0")).hex(), "services": {SERVICE: {"owner": owners}},
        "minimum": {"size": 1, "time": "2026-01-01T00:00:00Z"}, "max_age_seconds": 600,
        "map_auditor": "none", "rebuilders": "none",
        "platforms": {"sim-tdx": {"floors": "log", "require": require, "simulator_root_sha256": root.hex()}},
        "enclave": {"poll_seconds": POLL_SECONDS, "plaintext": "refused"},
    }  # fmt: skip
    return Policy.parse(canonical(document, multiline=True))


def started(log: Log, policy: Policy, platform: Platform, seed: str, poll: float) -> tuple[Enclave, Watcher]:
    """Check, serve, watch."""
    assert policy.enclave is not None
    client = LogClient(HTTP(plain_http=True), log.address)
    setup = Setup(
        policy, policy.enclave, SERVICE, Told(platform, seed), client, ProcessMemory(), SystemClock()
    )
    terms = Terms(SERVICE, policy.enclave, policy.max_age_seconds)
    enclave = Enclave(terms, Machine(setup), setup.clock)
    enclave.start(lambda digest: Silent())  # type: ignore[arg-type,return-value]
    watcher = Watcher(enclave.poll, poll)
    watcher.start()
    return enclave, watcher


def refuses(enclave: Enclave) -> bool:
    """Try to be admitted."""
    keyset = enclave.keys.current()
    try:
        if keyset is not None:
            enclave.serving(keyset, 0)
    except NotServing as error:
        return error.code == "measurement_revoked"
    return keyset is None and enclave.state.code == "measurement_revoked"


def group(log: Log, policy: Policy, platform: Platform, seeds: list[str], poll: float) -> list[float]:
    """Start an enclave for each seed, revoke each at a time of its own, and wait; seconds of each run."""
    makes = log.authority
    log.submit(makes.release(*seeds, policy_sha256=policy.digest.hex()))
    running = {seed: started(log, policy, platform, seed, poll) for seed in seeds}
    generator = random.Random(seeds[0])
    begun = time.monotonic()
    due = sorted((begun + generator.random() * poll, seed) for seed in seeds)
    sent: dict[str, float] = {}
    found: dict[str, float] = {}
    while len(found) < len(seeds):
        now = time.monotonic()
        if now - begun > DEADLINE_SECONDS:
            raise SystemExit(f"{len(seeds) - len(found)} enclaves still admit after {DEADLINE_SECONDS:g} s")
        if due and due[0][0] <= now:
            _, seed = due.pop(0)
            sent[seed] = time.monotonic()
            answer = log.request("POST", "/api/v1/entries", makes.revocation([seed]))
            assert answer.status in (200, 202), answer.data
        for seed in [seed for seed in sent if seed not in found and refuses(running[seed][0])]:
            found[seed] = time.monotonic() - sent[seed]
        time.sleep(0.005)
    for enclave, watcher in running.values():
        watcher.close()
        enclave.close()
    return list(found.values())


def measure(folder: Path, runs: int, together: int, scale: float) -> list[float]:
    """Make a log and run groups of enclaves at ``scale`` of the real settings."""
    now = datetime.now(UTC).replace(microsecond=0)
    pki, platform = hardware(folder, now=now)
    log = start_log(folder, publish_interval=PUBLISH_SECONDS * scale, quota=100_000)
    try:
        policy = policy_of(log, pki.root_sha256)
        makes = log.authority
        log.submit(makes.allocation(), makes.delegation(), makes.floor(product=PRODUCT, floor=FLOOR))
        seeds = [f"run-{number}" for number in range(runs)]
        found: list[float] = []
        for at in range(0, runs, together):
            found += group(log, policy, platform, seeds[at : at + together], POLL_SECONDS * scale)
    finally:
        log.stop()
    return sorted(found)


def main() -> None:
    """Print both, each beside its bar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenth", type=int, default=200)
    parser.add_argument("--real", type=int, default=5)
    parser.add_argument("--together", type=int, default=20)
    options = parser.parse_args()
    logging.disable()
    for name, runs, scale in (("at a tenth", options.tenth, 0.1), ("real settings", options.real, 1.0)):
        if not runs:
            continue
        processor = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), runs, options.together, scale)
        median, p99 = found[len(found) // 2], found[min(len(found) - 1, -(-len(found) * 99 // 100) - 1)]
        print(
            f"{name}: {runs} runs, median {median:.2f} s, p99 {p99:.2f} s, longest {found[-1]:.2f} s "
            f"(bar {BAR_SECONDS * scale:g} s: {'met' if p99 <= BAR_SECONDS * scale else 'missed'}); "
            f"processor of the enclaves {(time.process_time() - processor) / runs:.2f} s a run, "
            f"load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
