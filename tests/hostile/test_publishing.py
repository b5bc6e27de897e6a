"""Bar A51: what was accepted is cosigned and readable after one round, and within five seconds on real processes."""

import time
from pathlib import Path

import pytest

from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.proof import TlogProof
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import local
from tests.fakes.network import Network, create_witnessed
from tests.fakes.processes import Log

MOST_SECONDS = 5.0


def test_a51_an_accepted_entry_is_cosigned_and_proven_after_one_round(tmp_path: Path) -> None:
    network = Network()
    create_witnessed(tmp_path, network)
    with local(tmp_path, transport=network, clock=network.clock) as log:
        log.publisher.check_witnesses(ORIGIN)
        log.loop.round()
        client, policy = log.client(), TlogPolicy.parse(log.config.policy.read_text("utf-8"))
        for make in (
            log.authority.allocation,
            log.authority.delegation,
            log.authority.floor,
            log.authority.release,
        ):
            entry = make()
            assert client.post("/api/v1/entries", data=entry).status_code == 202
            log.loop.round()
            proof = TlogProof.parse(client.get(f"/api/v1/proofs/{leaf_hash(entry).hex()}").data)
            assert len(proof.verify(entry, policy, now=int(network.clock().timestamp())).cosignatures) == 3


@pytest.mark.soak
def test_a51_on_real_processes_99_of_100_entries_are_published_within_five_seconds(
    doors: dict[str, Log],
) -> None:
    log = doors["nginx"]
    took = []
    for number in range(100):
        started = time.monotonic()
        log.publish(log.authority.release(f"a51-{number}"))
        took.append(time.monotonic() - started)
    assert sorted(took)[98] <= MOST_SECONDS
    assert max(took) <= 60.0
