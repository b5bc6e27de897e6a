"""Receipts are judged alike by the library, by node and by a browser's own cryptography."""

import base64
import json
import subprocess

import pytest

from quotary.client.receipt import Exchange, Receipt, verify_exchange, verify_origin, verify_signature
from quotary.errors import InvalidSignature, Malformed, Refused, Rejected
from tests.conftest import ROOT
from tests.journeys.test_pages import CHROMIUM, FLAGS
from tests.vectors import make_receipts
from tests.web.test_second_implementation import LEAST_NODE, NODE, node_version

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
    if node_version() < LEAST_NODE:
        pytest.skip(f"node >= {LEAST_NODE} is not on this machine")
    code = """import("./tests/web/receipts.mjs").then(async ({ outcomes }) => {
        const { cases } = JSON.parse(require("fs").readFileSync("tests/vectors/receipt/receipts.json", "utf8"));
        console.log(JSON.stringify(await outcomes(cases)));
    });"""
    words = [str(NODE), "-e", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert differences(json.loads(done.stdout)) == []


@pytest.mark.browser
def test_chromium_gives_each_receipt_the_same_outcome() -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import Route, sync_playwright

    def serve(route: Route) -> None:
        name = route.request.url.removeprefix("http://localhost/")
        path = ROOT / ("tests/web/receipts.mjs" if name == "receipts.mjs" else f"web/static/{name}")
        body = path.read_text("utf-8") if name else "<!doctype html>"
        route.fulfill(body=body, content_type="text/javascript" if name else "text/html")

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = started.new_page()
        page.route("**/*", serve)
        page.goto("http://localhost/")
        found = page.evaluate(
            """async (cases) => {
                globalThis.QUOTARY_STATIC = "/";
                return (await import("/receipts.mjs")).outcomes(cases);
            }""",
            CASES,
        )
        started.close()
    assert differences(found) == []
