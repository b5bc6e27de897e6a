"""The verifier as one saved page: the text of the modules, and the same answers from a file without a network."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import web
from quotary.attestation.tdx import TDXQuote
from quotary.canonical import b64
from quotary.tlog.tiles import decode_entry_bundle
from registry.pages.standalone import MODULES, item, joined, standalone
from tests.attestation import manifest
from tests.fakes.authority import measurement
from tests.fakes.browser import chromium, violations
from tests.fakes.inprocess import local
from tests.fakes.log import FakeLog, tlog_policy
from tests.web.test_quote import question

VECTORS = Path(__file__).parents[1] / "vectors" / "tlog"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page from a file, in a browser that has no network."""
    saved = tmp_path_factory.mktemp("saved") / "verify.html"
    saved.write_bytes(standalone())
    with chromium() as browser:
        context = browser.new_context(offline=True)
        opened = context.new_page()
        opened.wrong = []
        opened.on("console", lambda line: opened.wrong.append(line.text) if line.type == "error" else None)
        opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
        opened.goto(saved.as_uri())
        yield opened
        context.close()


def test_it_holds_every_line_of_the_modules_but_imports_and_exports() -> None:
    text = set(joined().splitlines())
    for name in MODULES:
        for line in (web.FOLDER / "static" / name).read_text("utf-8").splitlines():
            if not line.startswith(("import ", "export {")) and ' from "./' not in line:
                assert line.removeprefix("export ") in text, line


def test_it_names_no_other_place_and_lets_nothing_in_or_out() -> None:
    text = standalone().decode()
    assert re.findall(r'(?:src|href|action)="(?!data:,")[^"]*"', text) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy[1]
    assert "unsafe" not in policy[1]


def verdict(page: Any, subject: str, entry: bytes | None, keys: str) -> str:
    page.fill("#keys", keys)
    page.fill("#subject", subject)
    page.evaluate("text => { document.querySelector('#entry').value = text }", (entry or b"").decode())
    page.click("section[data-paste] button")
    page.wait_for_selector("section[data-verdict]")
    found = page.locator("section[data-paste]").get_attribute("data-verdict")
    assert isinstance(found, str)
    return found


@pytest.mark.browser
def test_it_judges_the_vectors_of_python_from_a_file(page: Any) -> None:
    proof, keys = (VECTORS / "dual.tlog-proof").read_text(), (VECTORS / "dual.policy").read_text()
    entry = decode_entry_bundle((VECTORS / "example.entries").read_bytes())[3]
    assert verdict(page, proof, entry, keys) == "passed", b64(entry)
    assert verdict(page, proof, b"another entry", keys) == "mismatch"
    assert verdict(page, proof, None, keys) == "not-found"
    assert verdict(page, proof, entry, "") == "could-not-check"
    assert page.wrong == []


@pytest.mark.browser
def test_it_reads_bundles_and_statements_too(page: Any) -> None:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation(), log.maker.release("a"))
    log.close()
    bundle = log.bundle(measurement("a")).encode().decode()
    assert verdict(page, bundle, None, tlog_policy()) == "could-not-check"
    passed = page.locator("tr.passed td:nth-child(2)").all_inner_texts()
    assert {"state entry", "release signature", "record", "witness quorum"} <= set(passed)
    assert page.locator("tr.not-checked td:nth-child(2)").all_inner_texts() == [
        "who may sign for the service",
        "age, floors, evidence of a machine",
    ]
    log.append(log.maker.revocation(["a"]))
    log.close()
    assert verdict(page, log.bundle(measurement("a")).encode().decode(), None, tlog_policy()) == "refused"
    assert verdict(page, log.absence(measurement("b")).encode().decode(), None, tlog_policy()) == "not-found"
    assert verdict(page, log.entries[3].decode(), None, tlog_policy()) == "could-not-check"
    assert page.wrong == []


@pytest.mark.browser
def test_it_is_readable_by_everybody(page: Any) -> None:
    assert violations(page) == []


@pytest.mark.browser
def test_it_reads_a_real_quote_that_is_dropped_on_it(page: Any, vectors: Path) -> None:
    data = (vectors / "tdx" / "v5-90c06f-azure-nolevel.quote").read_bytes()
    drop(page, {"quote.bin": data})
    assert "What this browser can check of this evidence holds" in page.locator("[role=status]").inner_text()
    passed = page.locator("tr.passed td:nth-child(2)").all_inner_texts()
    assert {"root", "pck chain", "qe report data", "quote signature"} <= set(passed)
    assert "TCB level" in page.locator("tr.not-checked td:nth-child(2)").all_inner_texts()
    says = dict(
        zip(
            *(page.locator(f"table[data-said] td:nth-child({n})").all_inner_texts() for n in (1, 2)),
            strict=True,
        )
    )
    assert says["mrtd"] == TDXQuote.parse(data).body["mr_td"].hex()
    wide = page.viewport_size
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size(wide)
    assert page.wrong == []


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
def test_it_reads_a_report_with_its_certificates_and_notices_a_changed_bit(page: Any, vectors: Path) -> None:
    entry = manifest.entries(vectors)["snp/genoa-v3-veraison-vcek.report"]
    pem = question(entry)["pem"].encode()
    page.fill("#entry", "")
    drop(page, {"report.bin": entry.data, "chain.pem": pem})
    assert {"endorsement chain", "report signature"} <= set(
        page.locator("tr.passed td:nth-child(2)").all_inner_texts()
    )
    page.fill("#entry", "")
    spoiled = bytearray(entry.data)
    spoiled[0x90] ^= 1
    drop(page, {"report.bin": bytes(spoiled), "chain.pem": pem})
    assert page.locator("tr.failed td:nth-child(2)").all_inner_texts() == ["report signature"]
    assert page.locator("section[data-paste]").get_attribute("data-verdict") == "mismatch"


def drop(page: Any, files: dict[str, bytes]) -> None:
    """Drop files on the section, as a hand would, and wait for its verdict."""
    page.evaluate(
        """(files) => {
            const carried = new DataTransfer(), section = document.querySelector("section[data-paste]");
            delete section.dataset.verdict;
            for (const [name, text] of files) {
                carried.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
            }
            section.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        [[name, b64(data)] for name, data in files.items()],
    )
    page.wait_for_selector("section[data-verdict]")


def test_the_page_says_its_digest_and_where_it_is_logged(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        made, client = log.authority, log.client()
        log.append(made.allocation(), made.delegation(notices=("artefact",)))
        served = client.get("/verify/standalone.html")
        digest = hashlib.sha256(served.data).hexdigest()
        said = client.get("/verify.json").json
        assert (said["standalone"]["sha256"], said["logged"]) == (digest, [])
        assert "unsafe" not in served.headers["Content-Security-Policy"]
        assert item() == {"name": "verify/standalone.html", "sha256": digest, "size": len(served.data)}
        log.append(made.notice(items=[item()]))
        (index,) = client.get("/verify.json").json["logged"]
        assert f'href="/entries/{index}"' in client.get("/verify").get_data(as_text=True)
