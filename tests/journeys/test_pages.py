"""The auditors' pages in a real browser, and without one: what is said, and what is recomputed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from quotary.canonical import b64
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.tiles import decode_entry_bundle
from tests.fakes.authority import measurement
from tests.fakes.browser import chromium
from tests.fakes.log import FakeLog, policy_document, tlog_policy
from tests.fakes.processes import Log, start_log
from tests.fakes.site import addresses
from tests.vectors.make_orders import FREEZE, order

VECTORS = Path(__file__).parents[1] / "vectors" / "tlog"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A log with one service, one active and one revoked release."""
    found = start_log(tmp_path_factory.mktemp("pages"))
    made = found.authority
    found.submit(made.allocation(), made.delegation(), made.floor(), made.release("kept"))
    found.submit(made.release("withdrawn"), made.revocation(["withdrawn"]))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as started:
        yield started


def paths(log: Log) -> list[str]:
    found = log.json("/releases.json")["releases"]
    size = log.json("/log.json")["before"][0]["size"]
    return [page for _, page, _ in addresses([line["index"] for line in found], size)]


def test_a_page_says_the_status_without_javascript(log: Log) -> None:
    states = {}
    for path in [f"/measurements/chat/{measurement(seed).hex()}" for seed in ("kept", "withdrawn")]:
        page = log.get(path).decode()
        states[path] = re.search(r'<h1>[^<]*<span class="state (\w+)">', page)[1]
        assert log.json(path + ".json")["state"] == states[path]
    assert sorted(states.values()) == ["active", "revoked"]


def test_an_unknown_measurement_is_called_unknown_and_not_active(log: Log) -> None:
    page = log.get(f"/measurements/chat/{'00' * 32}").decode()
    assert 'class="state unknown"' in page


def test_every_page_says_simulation_under_a_simulation_origin(log: Log) -> None:
    assert log.policy.logs[0].name.endswith("/simulation")
    for path in paths(log):
        assert "Simulation: the TEE evidence behind this log" in log.get(path).decode()


def test_pages_carry_a_strict_policy_and_load_nothing_from_elsewhere(log: Log) -> None:
    for path in paths(log):
        answer = log.request("GET", path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "Set-Cookie" not in answer.headers
        assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.data.decode()) == []


@pytest.mark.parametrize(
    "path", ["/entries/999999", "/measurements/x/abc", "/entries?before=0", "/static/nothing"]
)
def test_a_page_that_is_not_there_is_a_problem(log: Log, path: str) -> None:
    answer = log.request("GET", path)
    assert answer.status in (400, 404)
    assert json.loads(answer.data)["type"].startswith("/problems/")


@pytest.mark.browser
def test_the_browser_recomputes_inclusion_and_every_signature(log: Log, browser) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{log.address}/entries/0")
    page.wait_for_selector("section[data-outcome]")
    rows = [row.inner_text().split("\t") for row in page.locator("section[data-proof] tbody tr").all()]
    assert [(row[1], row[0]) for row in rows] == [
        ("proof parses", "✓ passed"),
        ("inclusion", "✓ passed"),
        ("the log goes on", "✓ passed"),
        ("log signature (Ed25519)", "✓ passed"),
        ("log signature (ML-DSA-44)", "✓ passed"),
        ("witness signature (Ed25519)", "✓ passed"),
    ]
    assert problems == []
    page.close()


@pytest.mark.browser
def test_the_browser_contradicts_a_server_that_changes_an_entry(log: Log, browser) -> None:
    page = browser.new_page()
    other = log.get("/api/v1/entries/2")
    page.route("**/api/v1/entries/0", lambda route: route.fulfill(body=other))
    page.goto(f"{log.address}/entries/0")
    page.wait_for_selector("section[data-outcome=failed]")
    failed = page.locator("section[data-proof] tr.failed")
    assert [row.split("\t")[1] for row in failed.all_inner_texts()] == ["inclusion"]
    page.close()


@pytest.mark.browser
def test_the_browser_refuses_a_log_that_has_ended(log: Log, browser) -> None:
    ended = FakeLog()
    ended.append(ended.maker.genesis())
    ended.close()
    ended.order(order(FREEZE))
    page, last = browser.new_page(), len(ended.entries) - 1
    answers = {f"/api/v1/entries/{index}": ended.entries[index] for index in (0, last)}
    answers |= {f"/api/v1/proofs/{index}": ended.proof(index) for index in (0, last)}
    page.route("**/api/v1/*/*", lambda route: route.fulfill(body=answers[urlsplit(route.request.url).path]))
    page.goto(f"{log.address}/entries/0")
    page.wait_for_selector("section[data-outcome]")
    page.locator("section[data-proof] summary").click()
    page.locator("section[data-proof] textarea").fill(tlog_policy())
    page.locator("section[data-proof] button").click()
    page.wait_for_selector("section[data-outcome=refused]")
    assert "ended with the freeze" in page.locator("section[data-proof] tr.refused").inner_text()
    assert "the log has ended" in page.locator("section[data-proof] [role=status]").inner_text()
    page.close()


@pytest.mark.browser
def test_what_the_verifier_imports_is_held_to_its_digest(log: Log, browser) -> None:
    page = browser.new_page()
    changed = log.get("/static/ed25519.js") + b"// changed\n"
    page.route(
        "**/static/ed25519.js", lambda route: route.fulfill(body=changed, content_type="text/javascript")
    )
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{log.address}/entries/0")
    assert any("integrity" in text for text in problems), problems
    assert page.locator("section[data-outcome]").count() == 0
    page.close()


def test_an_asset_without_a_digest_in_its_address_is_asked_for_again(log: Log) -> None:
    page = log.get("/entries/0").decode()
    (named,) = re.findall(r'src="(/static/panel.js\?[0-9a-f]+)"', page)
    assert "immutable" in log.request("GET", named).headers["Cache-Control"]
    answer = log.request("GET", "/static/ed25519.js")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = log.request("GET", "/static/ed25519.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


@pytest.mark.browser
def test_the_browser_refuses_a_checkpoint_under_another_key(log: Log, browser) -> None:
    page = browser.new_page()
    page.goto(f"{log.address}/entries/0")
    page.wait_for_selector("section[data-outcome=passed]")
    other = (VECTORS / "dual.policy").read_text()
    page.locator("section[data-proof] summary").click()
    page.locator("section[data-proof] textarea").fill(other)
    page.locator("section[data-proof] button").click()
    page.wait_for_selector("section[data-outcome=failed]")
    assert "no signature by" in page.locator("section[data-proof] tr.failed").first.inner_text()
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 768])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_window(log: Log, browser, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for path in paths(log):
        page.goto(log.address + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.close()


@pytest.mark.browser
def test_verify_js_reads_the_same_vectors_as_python(log: Log, browser) -> None:
    """Proofs of tests/vectors/tlog, through the module that the page serves."""
    page = browser.new_page()
    page.goto(f"{log.address}/entries/0")
    script = """async ([proof, policy, entry]) => {
        const module = await import('/static/verify.js');
        const bytes = Uint8Array.from(atob(entry), (c) => c.charCodeAt(0));
        return (await module.checkEntry(bytes, proof, policy)).map((result) => [result.name, result.outcome]);
    }"""
    entry = b64(decode_entry_bundle((VECTORS / "example.entries").read_bytes())[3])
    proof, policy = (VECTORS / "dual.tlog-proof").read_text(), (VECTORS / "dual.policy").read_text()
    good = page.evaluate(script, [proof, policy, entry])
    passed = {name for name, outcome in good if outcome == "passed"}
    assert {"inclusion", "log signature (Ed25519)", "log signature (ML-DSA-44)"} <= passed
    assert "failed" not in {outcome for _, outcome in good}, good
    bad = page.evaluate(script, [proof, policy, b64(b"another entry")])
    assert ["inclusion", "failed"] in bad
    page.close()


def verdict(page, subject: bytes, entry: bytes, policy: str | None = None) -> str:
    """What the page /verify says of pasted texts."""
    page.fill("#subject", subject.decode())
    page.fill("#entry", entry.decode())
    if policy is not None:
        page.evaluate("text => { document.querySelector('#keys').value = text }", policy)
    page.click("section[data-paste] button")
    page.wait_for_selector("section[data-verdict]")
    return page.locator("section[data-paste]").get_attribute("data-verdict")


@pytest.mark.browser
def test_verify_has_four_different_failures_and_sends_nothing(log: Log, browser) -> None:
    checkpoint, proof, entry = (
        log.get(path) for path in ("/checkpoint", "/api/v1/proofs/2", "/api/v1/entries/2")
    )
    policy = log.policy_text
    page = browser.new_page()
    page.goto(f"{log.address}/verify")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    assert verdict(page, checkpoint, b"") == "passed"
    assert verdict(page, proof, entry) == "passed"
    assert verdict(page, proof, log.get("/api/v1/entries/4")) == "mismatch"
    assert verdict(page, proof, b"") == "not-found"
    assert verdict(page, b"", entry) == "not-found"
    assert verdict(page, b"no checkpoint", b"") == "could-not-check"
    unsigned = b"\n".join(line for line in checkpoint.split(b"\n") if b" witness.example.org " not in line)
    assert verdict(page, unsigned, b"") == "refused"
    assert verdict(page, unsigned, b"", re.sub(r"(?m)^quorum .*$", "quorum none", policy)) == "passed"
    assert verdict(page, checkpoint, b"", (VECTORS / "dual.policy").read_text()) == "refused"
    bundle = log.get(f"/api/v1/bundles/chat/{measurement('withdrawn').hex()}")
    assert verdict(page, bundle, b"", policy) == "refused"
    assert verdict(page, entry, b"", policy) == "could-not-check"
    assert verdict(page, checkpoint, b"", (VECTORS / "dual.policy").read_text()) == "refused"
    texts = page.locator("[role=status].verdict").all_inner_texts()
    assert texts[0].startswith("▲ Refused.")
    assert sent == []
    page.close()


@pytest.mark.browser
def test_a_policy_is_tried_on_a_bundle_in_the_browser_and_sent_nowhere(log: Log, browser) -> None:
    document = policy_document(genesis=leaf_hash(log.get("/api/v1/entries/0")).hex())
    document |= {"tlog_policy": log.policy_text, "rebuilders": "none"}
    page = browser.new_page()
    page.goto(f"{log.address}/policies")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.fill("#policy", json.dumps(document))
    for seed, wanted in (("kept", "not-refused"), ("withdrawn", "refused")):
        page.fill("#bundle", log.get(f"/api/v1/bundles/chat/{measurement(seed).hex()}").decode())
        page.click("section[data-boot] button")
        page.wait_for_selector(f"section[data-verdict={wanted}]")
    assert "is revoked" in page.locator("section[data-boot] tr.refused").inner_text()
    assert sent == []
    page.close()


@pytest.mark.browser
def test_verify_finds_a_changed_size_and_a_changed_signature(log: Log, browser) -> None:
    page = browser.new_page()
    page.goto(f"{log.address}/verify")
    lines = log.get("/checkpoint").split(b"\n")
    assert verdict(page, b"\n".join([lines[0], b"1", *lines[2:]]), b"") == "mismatch"
    for number in range(4, len(lines) - 1):
        changed = lines[number][:-10] + (b"A" if lines[number][-10:-9] != b"A" else b"B") + lines[number][-9:]
        broken = b"\n".join([*lines[:number], changed, *lines[number + 1 :]])
        assert verdict(page, broken, b"") == "mismatch", number
    page.close()
