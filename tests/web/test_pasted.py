"""web/static/pasted.js: a receipt with what belongs to it, and evidence under vendors' and under a simulator's root."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from enclave.roots import MINUTE, ReceiptRoots
from quotary.canonical import b64
from quotary.client.receipt import Receipt
from quotary.statements.keyset import RECEIPT, Keyset, KeysetKey
from tests.client.test_receipt import KEYS, made, sign
from tests.fakes import authority
from tests.fakes.authority import NOW, ORIGIN, SERVICE
from tests.fakes.log import FakeLog, policy_bytes, policy_document
from tests.fakes.machine import hardware, keyset, registers
from tests.web.test_verify import ed25519_policy, said

AT = 1_795_000_000
NEVER = {"whose keyset it is", "question and answer"}


@dataclass(frozen=True)
class Kept:
    """What somebody kept of an answer: each part as it is pasted, by name."""

    receipt: Receipt
    beside: Mapping[str, str]


@pytest.fixture(scope="module")
def kept() -> Kept:
    keys = replace(keyset(bytes(1216)), keys=(KeysetKey("receipt-1", RECEIPT, "ed25519", KEYS["receipt-1"]),))
    found = [_of(keys, number) for number in range(3, 6)]
    roots = ReceiptRoots()
    for receipt in found:
        roots.add(receipt.sequence, replace(receipt, salt=None).encode(), AT)
    place, log = roots.place(4, AT + MINUTE), FakeLog()
    assert place is not None
    maker = log.maker
    log.append(maker.genesis(), maker.allocation(), maker.delegation(notices=("receipt-root",)))
    log.append(maker.notice("receipt-root", items=[place.root.item]))
    log.close()
    beside = {
        "keyset": keys.encode().decode(),
        "place": place.encode().decode(),
        "statement": log.entries[3].decode(),
        "proof": log.proof(3).decode(),
    }
    return Kept(found[1], beside)


def _of(keys: Keyset, sequence: int) -> Receipt:
    receipt = made()
    origin = replace(receipt.origin, keyset=keys.digest, service=SERVICE, log=ORIGIN)
    return sign(replace(receipt, sequence=sequence, origin=origin))


def judged(receipt: bytes, beside: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    found = said("checkReceipt", receipt.decode(), ed25519_policy(), "\n".join(beside.values()))
    assert isinstance(found, dict)
    return found["verdict"], {row["name"]: row["outcome"] for row in found["results"]}


def test_a_receipt_with_everything_beside_it_holds_and_names_what_is_left(kept: Kept) -> None:
    verdict, rows = judged(kept.receipt.encode(), kept.beside)
    assert verdict == "could-not-check"
    assert {name for name, outcome in rows.items() if outcome != "passed"} == NEVER
    assert {"signature", "place under a root of receipts", "inclusion", "witness quorum"} <= set(rows)


def test_the_public_copy_stands_at_the_same_place(kept: Kept) -> None:
    _, rows = judged(replace(kept.receipt, salt=None).encode(), kept.beside)
    assert {name for name, outcome in rows.items() if outcome != "passed"} == NEVER


def test_what_is_not_beside_it_is_not_checked(kept: Kept) -> None:
    _, rows = judged(kept.receipt.encode(), {})
    assert {name for name, outcome in rows.items() if outcome == "passed"} == {"the receipt can be read"}
    assert set(rows.values()) == {"passed", "not checked"}


@pytest.mark.parametrize(
    ("part", "old", "new", "row"),
    [
        ("keyset", '"instance":"instance-1"', '"instance":"instance-2"', "signature"),
        ("place", '"index":1', '"index":2', "place under a root of receipts"),
        ("place", '"size":3', '"size":2', "place under a root of receipts"),
        ("place", '"first":3', '"first":2', "place under a root of receipts"),
        ("statement", '"payloadType"', '"payloadTypo"', "the root is the service's word"),
        ("proof", "index 3", "index 2", "inclusion"),
    ],
)
def test_each_part_is_held_to_the_others(kept: Kept, part: str, old: str, new: str, row: str) -> None:
    assert old in kept.beside[part]
    verdict, rows = judged(kept.receipt.encode(), {**kept.beside, part: kept.beside[part].replace(old, new)})
    assert rows.get(row) != "passed"
    assert verdict == "mismatch"


def test_a_root_of_other_receipts_is_not_this_ones(kept: Kept) -> None:
    maker = FakeLog().maker
    other = maker.notice("receipt-root", items=[{"name": "receipts/3", "sha256": "ab" * 32, "size": 3}])
    verdict, rows = judged(kept.receipt.encode(), {**kept.beside, "statement": other.decode()})
    assert (verdict, rows["the root is the service's word"]) == ("mismatch", "failed")


def test_a_receipt_that_was_changed_is_a_mismatch(kept: Kept) -> None:
    changed = kept.receipt.encode().replace(b'"in":5', b'"in":6')
    verdict, rows = judged(changed, kept.beside)
    assert (verdict, rows["signature"], rows["place under a root of receipts"]) == (
        "mismatch",
        "failed",
        "failed",
    )


def evidence(policy: str, tmp_path: Path) -> tuple[str, dict[str, str], str]:
    pki, platform = hardware(tmp_path)
    quote = b64(platform.quote(registers(), bytes(64)))
    if policy == "simulation":
        policy = policy_bytes(policy_document(root=pki.root_sha256.hex())).decode()
    found = said("checkEvidence", quote, policy, "", int(NOW.timestamp()))
    assert isinstance(found, dict)
    facts = dict(found.get("said", []))
    return (
        found["verdict"],
        {row["name"]: row["outcome"] for row in found["results"]},
        facts.get("measurement id", ""),
    )


def test_simulated_evidence_holds_only_under_a_policy_for_simulation(tmp_path: Path) -> None:
    verdict, rows, _ = evidence(ed25519_policy(), tmp_path / "first")
    assert (verdict, rows["root"]) == ("refused", "refused")
    verdict, rows, measurement = evidence("simulation", tmp_path / "second")
    assert (verdict, rows["quote signature"]) == ("could-not-check", "passed")
    assert measurement == authority.measurement("machine").hex()


def test_a_production_policy_admits_the_roots_of_its_own_platforms_only() -> None:
    document = policy_document()
    document |= {"environment": "production", "platforms": {"snp": {}, "nitro": {}}}
    found = said("rootsOf", policy_bytes(document).decode())
    assert isinstance(found, list)
    assert {root["platform"] for root in found} == {"snp", "nitro"}
    found = said("rootsOf", policy_bytes({**document, "devices": {}}).decode())
    assert isinstance(found, list)
    assert {root["platform"] for root in found} == {"snp", "nitro", "nvidia"}
