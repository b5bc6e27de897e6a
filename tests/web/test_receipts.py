"""Receipts are judged alike by the library, by node and by a browser's own cryptography."""

import base64
import json

import pytest

from quotary.client.receipt import Exchange, Receipt, verify_exchange, verify_origin, verify_signature
from quotary.errors import InvalidSignature, Malformed, Refused, Rejected
from tests.conftest import ROOT
from tests.fakes.browser import chromium_says
from tests.fakes.node import node_says
from tests.vectors import make_receipts

CASES = json.loads(make_receipts.FILE.read_text())["cases"]
WANTED = [case["outcome"] for case in CASES]


def outcome(case: dict) -> str:  # type: ignore[type-arg]  # JSON
    judged, sent = case["judged"], case["exchange"]
    keys = {name: base64.b64decode(key) for name, key in case["keys"].items()}
    exchange = Exchange(
        bytes.fromhex(sent["request_wire"]), base64.b64decode(sent["request"]), base64.b64decode(sent["response"]),
        [bytes.fromhex(chain) for chain in sent["chains"]], sent["min_log_size"],
    )  # fmt: skip
    digests = {name: bytes.fromhex(judged[name]) for name in ("measurement", "keyset", "weights")}
    try:
        receipt = Receipt.parse(base64.b64decode(case["receipt"]))
        verify_signature(receipt, keys)
        verify_origin(receipt, service=judged["service"], **digests)
        verify_exchange(receipt, exchange)
    except Malformed:
        return "malformed"
    except InvalidSignature:
        return "signature"
    except (Rejected, Refused) as error:
        return error.check
    return "ok"


def differences(found: list[str]) -> list[tuple[str, str, str]]:
    return [
        (case["about"], said, wanted)
        for case, said, wanted in zip(CASES, found, WANTED, strict=True)
        if said != wanted
    ]


def test_the_vectors_hold_every_kind_of_outcome() -> None:
    assert len(CASES) > 40
    assert {"ok", "malformed", "signature", "receipt chain", "receipt weights", "receipt complete"} <= set(
        WANTED
    )


def test_the_script_makes_these_very_cases() -> None:
    made = [*make_receipts.accepted(), *make_receipts.unsigned(), *make_receipts.malformed()]
    assert json.loads(json.dumps(made)) == CASES


def test_the_library_gives_each_receipt_its_outcome() -> None:
    assert differences([outcome(case) for case in CASES]) == []


def test_node_gives_each_receipt_the_same_outcome() -> None:
    assert differences(node_says("tests/web/receipts.mjs", CASES, "run")) == []


@pytest.mark.browser
def test_chromium_gives_each_receipt_the_same_outcome() -> None:
    assert differences(chromium_says(ROOT / "tests/web/receipts.mjs", "outcomes", CASES)) == []
