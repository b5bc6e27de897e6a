"""The enclave's page in headless Chromium: a Worker that plays the enclave, and a live one behind the proxy."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from werkzeug.serving import make_server

from builder.model import MadeModel, make_model
from enclave.api import create_app
from enclave.boot import Machine, Setup
from enclave.device import DeviceEvidence, Evidence
from enclave.runtime import Enclave, Terms
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.cli.proxy import page_files
from quotary.client.browser import Kept, verify_kept
from quotary.client.clock import SystemClock
from quotary.client.policy import DOORS, Policy
from quotary.client.proxy import Proxy
from quotary.client.session import Client
from quotary.client.trust import ProcessMemory
from quotary.errors import CannotTell
from tests.conftest import ROOT
from tests.enclave.door_site import Quiet
from tests.fakes import authority
from tests.fakes.browser import chromium
from tests.fakes.log import FakeLog, policy_bytes
from tests.fakes.machine import SEED, World, hardware


@dataclass(frozen=True, slots=True)
class Parts:
    """A machine's device and its log, as the enclave meets them."""

    world: World

    def quote(self, report_data: bytes) -> Evidence:
        return Evidence(
            self.world.platform.quote(self.world.registers(), report_data), self.world.platform.collateral
        )

    def devices(self, nonces: object) -> DeviceEvidence:
        raise CannotTell("no GPUs")

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        return self.world.bundle()


def released(folder: Path, weights: bytes) -> tuple[World, bytes]:
    """A log of now whose release is of these weights and of the policy that is given back."""
    now = datetime.now(UTC).replace(microsecond=0)
    world = World(*hardware(folder, now=now), log=FakeLog(now=now), now=now).publish()
    document: dict[str, Any] = world.policy()
    document["minimum"] = {"size": 1, "time": "2026-01-01T00:00:00Z"}
    document["enclave"]["doors"] = list(DOORS)
    policy = policy_bytes(document)
    maker, digest = world.log.maker, Policy.parse(policy).digest.hex()
    rows = [authority.row(SEED)]
    world.release = maker.release(rows=rows, policy_sha256=digest, weights_sha256=weights.hex())
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    return world, policy


@contextmanager
def enclave_of(world: World, policy: Policy, model: MadeModel) -> Iterator[str]:
    assert policy.enclave is not None
    parts, clock = Parts(world), SystemClock()
    setup = Setup(policy, policy.enclave, authority.SERVICE, parts, parts, ProcessMemory(), clock)
    enclave = Enclave(Terms(authority.SERVICE, policy.enclave, 900), Machine(setup), clock)
    enclave.start(lambda digest: TransformerModel(read_weights(model.folder, digest), threads=1))
    server = make_server("127.0.0.1", 0, create_app(enclave), threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        enclave.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a proxy in front of a live enclave; everything but its hardware and its log's network is real."""
    model = make_model(tmp_path_factory.mktemp("model"), source=ROOT / "quotary", steps=1)
    world, text = released(tmp_path_factory.mktemp("vendor"), model.digest)
    with ExitStack() as stack:
        policy = Policy.parse(text)
        url = stack.enter_context(enclave_of(world, policy, model))
        proxy = Proxy(Client(url, policy), files=page_files(text))
        thread = proxy.start()
        yield proxy.page.rstrip("/")
        proxy.close()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def measured() -> bytes:
    """What the Worker must find when it hashes its own source."""
    sources = [(ROOT / "web" / "enclave" / name).read_bytes() for name in ("worker.js", "layout.js")]
    return hashlib.sha256(b"".join(sources)).digest()


@dataclass(slots=True)
class Page:
    """The page, one button at a time."""

    page: Any
    done: int = 0

    def press(self, name: str) -> str:
        """Press a button, wait until its work is over, and say how the checks came out."""
        self.page.click(f"#{name}")
        self.done += 1
        self.page.wait_for_selector(f'body[data-idle="{self.done}"]')
        return str(self.page.get_attribute("#outcome", "data-outcome"))

    def text(self, name: str) -> str:
        return str(self.page.inner_text(f"#{name}"))

    def rows(self) -> dict[str, str]:
        cells = [row.inner_text().split("\t") for row in self.page.locator("#checks tr").all()]
        return {cell[1]: cell[0].split(" ", 1)[1] for cell in cells}


@pytest.fixture
def opened(address: str, browser: Any) -> Iterator[Page]:
    page, problems = browser.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(address) else problems.append(asked.url))
    page.goto(f"{address}/enclave/")
    yield Page(page)
    page.close()
    assert problems == []


@pytest.mark.browser
def test_a_worker_boots_attests_answers_and_every_change_is_seen(opened: Page) -> None:
    opened.press("boot")
    assert "SIMULATED" in opened.text("label")
    assert opened.press("attest") == "passed", opened.text("outcome")
    assert opened.press("ask") == "passed", opened.text("outcome")
    assert opened.text("answer").startswith("the ")
    assert opened.rows() == {"hardware": "not checked", "quote": "passed", "receipt": "passed"}
    assert not opened.page.is_visible("#tamper-evidence")
    verify_kept(Kept.parse(opened.page.text_content("#kept").encode()), measured())
    for button, said in (
        ("tamper-answer", "the receipt is about the response"),
        ("tamper-question", "the receipt is about the request"),
        ("tamper-key", "the signature of the quote does not hold"),
        ("tamper-measurement", "found measurement"),
    ):
        assert opened.press(button) == "failed"
        assert said in opened.text("outcome")
    assert opened.press("verify") == "passed"


@pytest.mark.browser
def test_a_live_enclave_is_judged_asked_and_held_to_its_receipt(opened: Page) -> None:
    opened.page.check("#live")
    opened.press("boot")
    assert "SIMULATED: the evidence of this enclave comes from a simulator" in opened.text("label")
    assert opened.press("attest") == "passed", opened.text("outcome")
    assert opened.press("ask") == "passed", opened.text("outcome")
    rows = opened.rows()
    verify_kept(
        Kept.parse(opened.page.text_content("#kept").encode()), authority.measurement(SEED, "sim-tdx")
    )
    for name in (
        "root", "qe report data", "quote signature", "binding", "nonce", "age of the checkpoint", "log: record", "log: release signature",
        "log: who may sign for the service", "row", "quote", "key of the quote", "receipt", "receipt of the enclave", "answer of the receipt",
        "request of the receipt", "response of the receipt",
    ):  # fmt: skip
        assert rows[name] == "passed", name
    log_keys = {name for name in rows if name.startswith("log: log key") or name == "log: witness quorum"}
    assert {name for name, outcome in rows.items() if outcome == "not checked"} - log_keys == {
        "revocation of certificates", "identity of the quoting enclave", "TCB level", "TDX module", "TCB floor", "the row's other rules",
        "map auditor, rebuilders", "sealed channel", "tokens of the receipt",
    }  # fmt: skip
    for button, said in (
        ("tamper-evidence", "quote signature"),
        ("tamper-log", "log: entry"),
        ("tamper-owner", "log: who may sign for the service"),
        ("tamper-receipt", "receipt of the enclave"),
        ("tamper-salt", "request of the receipt"),
        ("tamper-signer", "the key of the quote is not in the attested keyset"),
        ("tamper-key", "the signature of the quote does not hold"),
        ("tamper-measurement", "found measurement"),
        ("tamper-answer", "the receipt is about the response"),
        ("tamper-question", "the receipt is about the request"),
    ):
        assert opened.press(button) == "failed"
        assert said in opened.text("outcome"), button
        part = {"tamper-answer": "response", "tamper-question": "request"}.get(button)
        assert part is None or opened.rows()[f"{part} of the receipt"] == "failed"
    assert opened.press("verify") == "passed"


def test_the_page_has_a_strict_policy_and_names_nobody_else(address: str) -> None:
    reply = urllib3.request("GET", f"{address}/enclave/", timeout=20)
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in page_files(b"{}"):
        text = urllib3.request("GET", f"{address}{path}", timeout=20).data.decode()
        assert re.findall(r'(?:src|href|fetch\()="?(?:https?:)?//', text) == []
    assert urllib3.request("GET", f"{address}/enclave/../proxy.py", timeout=20, retries=False).status == 404
