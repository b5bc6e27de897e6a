"""C23: many ask for evidence at once, hardware answers one at a time, and each gets evidence over its own nonce."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from enclave.batches import NonceBatches
from enclave.boot import Machine
from enclave.device import Evidence
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.client.clock import FixedClock
from quotary.client.trust import ProcessMemory
from quotary.client.verify import judge
from quotary.errors import CannotTell, Rejected
from quotary.tlog.merkle import leaf_hash
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.enclave.test_boot_check import machine, own, vendor  # noqa: F401  # a fixture
from tests.fakes.processes import until

CLIENTS = 64


@dataclass(slots=True)
class Slow:
    """Hardware whose first answer takes until everybody else has asked."""

    device: object
    busy: threading.Event
    gathered: Callable[[], int] = lambda: 0
    asked: int = 0

    def quote(self, report_data: bytes) -> Evidence:
        self.asked += 1
        if self.asked == 1:
            self.busy.set()
            until(lambda: self.gathered() == CLIENTS - 1, "everybody else waits for the next quote")
        return self.device.quote(report_data)  # type: ignore[attr-defined, no-any-return]  # the simulated device


def test_c23_one_quote_answers_everybody_who_came_while_the_last_was_made(
    vendor: tuple[PKI, Platform],  # noqa: F811
) -> None:
    found, served = machine(vendor)
    believed = found.check(own(served))
    slow = Slow(found.setup.device, threading.Event())
    busy = Machine(replace(found.setup, device=slow))  # type: ignore[arg-type]  # it is asked for quotes only

    def gathered() -> int:
        batch = busy._batches._open
        return 0 if batch is None else len(batch.leaves)

    def client(nonce: bytes) -> AttestationDocument:
        if nonce[0]:
            slow.busy.wait(60)
        return AttestationDocument.parse(busy.attest(believed, nonce))

    slow.gathered = gathered
    nonces = [bytes([number]) * 32 for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        shown = dict(zip(nonces, pool.map(client, nonces), strict=True))
    assert slow.asked == 2
    assert {document.nonce.size for document in shown.values()} == {1, CLIENTS - 1}
    assert len({(document.nonce.size, document.nonce.index) for document in shown.values()}) == CLIENTS
    setup = found.setup
    for nonce, document in list(shown.items())[::8]:
        assert document.bundle is not None
        inputs = (document.bundle, setup.policy, ProcessMemory(), FixedClock(served.world.now))
        assert judge(document, nonce, *inputs).checks
        with pytest.raises(Rejected, match="nonce"):
            judge(document, b"\xff" * 32, *inputs)


def test_whoever_does_not_ask_with_a_nonce_costs_no_quote(vendor: tuple[PKI, Platform]) -> None:  # noqa: F811
    found, served = machine(vendor)
    believed = found.check(own(served))
    deaf = Machine(replace(found.setup, device=None))  # type: ignore[arg-type]  # nobody may ask it
    shown = AttestationDocument.parse(deaf.attest(believed, None))
    assert (shown.nonce, shown.evidence) == (NonceProof(0, 0, ()), believed.document.evidence)


def test_one_client_alone_is_a_batch_of_one() -> None:
    batches = NonceBatches(lambda about, root: (about, root))
    assert batches.ask("keys", b"n" * 32) == (("keys", leaf_hash(b"n" * 32)), NonceProof(0, 1, ()))


def test_a_failure_reaches_its_batch_and_not_the_next() -> None:
    answers = iter([CannotTell("busy"), None])

    def make(about: str, root: bytes) -> str:
        error = next(answers)
        if error is not None:
            raise error
        return about

    batches = NonceBatches(make)
    with pytest.raises(CannotTell, match="busy"):
        batches.ask("keys", b"n" * 32)
    assert batches.ask("keys", b"n" * 32)[0] == "keys"
