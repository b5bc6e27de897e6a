"""web/static/kept.js: what a client kept of one answer, whole and broken in the ways that the library refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quotary.client.files import EvidenceFile
from quotary.client.receipt import Receipt, Signature
from quotary.errors import Judged
from quotary.statements.keyset import Keyset
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.client import spoiled_machine, spoiled_release
from tests.client.test_receipt import made
from tests.fakes import authority
from tests.fakes.attempt import Attempt
from tests.fakes.gpus import GPUs, nvidia_vendor
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World, hardware
from tests.web.test_verify import ed25519_policy, said

Change = Callable[[Attempt], object]
# What only the vendor's further documents or a row's other rules show: the browser says "not checked" of them.
LEFT = {
    "revocation of certificates",
    "identity of the quoting enclave",
    "TCB level",
    "TDX module",
    "TCB floor",
    "the row's other rules",
    "map auditor, rebuilders",
}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def attempt(vendor: tuple[PKI, Platform]) -> Attempt:
    return Attempt.of(World(*vendor).publish())


def receipt_of(attempt: Attempt, **changes: Any) -> Receipt:
    """A receipt that the machine's keyset signed about its own release, or about something else."""
    keys, receipt, world = Keyset.parse(attempt.document.keyset), made(), attempt.world
    start = int(keys.not_before.timestamp()) + 60
    origin = replace(
        receipt.origin, service="chat", measurement=world.measurement, keyset=keys.digest,
        weights=bytes.fromhex("04" * 32), log=world.log.origin,
    )  # fmt: skip
    served = replace(receipt.served, start=start, end=start + 1)
    found = replace(receipt, origin=replace(origin, **changes), served=served)
    signature = authority.key("receipt").sign(found.signed_bytes())
    return replace(found, signatures=(Signature("receipt-1", signature),))


def judged(attempt: Attempt, receipt: Receipt | None = None) -> tuple[str, dict[str, str]]:
    file = EvidenceFile(
        attempt.document.encode(),
        attempt.bundle.encode(),
        attempt.nonce,
        None if receipt is None else receipt.encode(),
        attempt.now,
    )
    policy = policy_bytes({**attempt.policy, "tlog_policy": ed25519_policy()}).decode()
    text = file.encode().decode()
    found = said("checkKept", text, policy, 0)
    assert isinstance(found, dict)
    return found["verdict"], {row["name"]: row["outcome"] for row in found["results"]}


def test_everything_that_a_browser_can_check_of_an_answer_holds_and_the_rest_is_named(
    attempt: Attempt,
) -> None:
    verdict, rows = judged(attempt, receipt_of(attempt))
    assert verdict == "could-not-check"
    assert {name for name, outcome in rows.items() if outcome != "passed"} == LEFT
    assert {
        "quote signature",
        "binding",
        "nonce",
        "row",
        "receipt",
        "age of the checkpoint",
        "log: who may sign for the service",
    } <= set(rows)


def test_a_document_alone_is_judged_now_and_says_what_is_not_there(attempt: Attempt) -> None:
    policy = policy_bytes(attempt.policy).decode()
    found = said("checkKept", attempt.document.encode().decode(), policy, attempt.now.timestamp())
    assert isinstance(found, dict)
    rows = {row["name"]: row["outcome"] for row in found["results"]}
    assert (rows["binding"], rows["nonce"], rows["log"], rows["receipt"]) == ("passed", *["not checked"] * 3)


# What needs more than a browser has.
BEYOND = (
    spoiled_machine.expire_collateral,
    spoiled_machine.extend_rtmr3,
    spoiled_machine.configure_otherwise,
    spoiled_machine.measure_something_free,
)
CASES = [
    *spoiled_machine.CASES["evidence"],
    *spoiled_machine.CASES["binding"],
    *spoiled_machine.CASES["nonce"],
    *spoiled_machine.CASES["row"],
    *spoiled_release.CASES["status"],
]


@pytest.mark.parametrize(
    "change", [change for change, _ in CASES if change not in BEYOND], ids=lambda change: change.__name__
)
def test_what_the_library_refuses_is_refused_here(attempt: Attempt, change: Change) -> None:
    change(attempt)
    verdict, rows = judged(attempt)
    assert verdict in ("mismatch", "refused"), rows
    with pytest.raises(Judged):
        attempt.judge()


@pytest.mark.parametrize("change", BEYOND, ids=lambda change: change.__name__)
def test_what_a_browser_cannot_see_is_not_called_good(attempt: Attempt, change: Change) -> None:
    change(attempt)
    verdict, rows = judged(attempt)
    assert verdict != "passed"
    assert {rows[name] for name in LEFT & rows.keys()} <= {"not checked"}


def test_a_receipt_that_was_changed_or_is_of_another_machine_is_a_mismatch(attempt: Attempt) -> None:
    for receipt in (
        replace(receipt_of(attempt), sequence=99),
        receipt_of(attempt, measurement=bytes(32)),
        receipt_of(attempt, keyset=bytes(32)),
        receipt_of(attempt, weights=bytes(32)),
        receipt_of(attempt, service="search"),
    ):
        verdict, rows = judged(attempt, receipt)
        assert (verdict, rows["receipt"]) == ("mismatch", "failed")


def test_a_checkpoint_older_than_the_policy_admits_is_refused_by_its_witnesses_times(
    attempt: Attempt,
) -> None:
    newest = int(attempt.now.timestamp()) - attempt.world.ts
    for most, wanted in ((newest, "passed"), (newest - 1, "refused")):
        attempt.policy["max_age_seconds"] = most
        assert judged(attempt)[1]["age of the checkpoint"] == wanted


def test_without_a_nonce_freshness_is_not_checked(attempt: Attempt) -> None:
    attempt.nonce = None
    assert judged(attempt)[1]["nonce"] == "not checked"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPUs, GPUs]:
    made = nvidia_vendor(tmp_path_factory.mktemp("nvidia"))
    return GPUs.of(made, 2, 1, number=1), GPUs.of(made, 2, 1, number=2)


def test_devices_are_held_to_their_root_and_to_the_keyset(
    vendor: tuple[PKI, Platform], machines: tuple[GPUs, GPUs]
) -> None:
    world = World(*vendor, gpus=machines[0]).publish()
    verdict, rows = judged(Attempt.of(world))
    devices = [name for name in rows if name.startswith("device ")]
    assert (verdict, len(devices), {rows[name] for name in devices}) == ("could-not-check", 3, {"passed"})
    assert rows["one machine, modes, versions, confidential mode"] == "not checked"
    old = machines[0].evidence(bytes(32))
    attempt = Attempt.of(world)
    attempt.document = world.document(devices=old)
    verdict, rows = judged(attempt)
    assert (verdict, rows["binding"], rows["device 0"]) == ("mismatch", "passed", "failed")
    attempt.policy["devices"]["simulator_root_sha256"] = "ab" * 32
    assert judged(attempt)[1]["device 0"] == "failed"


@pytest.mark.parametrize("text", ["{", '{"type":"quotary/evidence/v1"}', '{"binding":"","cpu":{}}', "[]"])
def test_what_is_no_file_of_evidence_says_nothing(text: str) -> None:
    found = said("checkKept", text, "", 0)
    assert isinstance(found, dict)
    assert (found["verdict"], len(found["results"])) == ("could-not-check", 1)
