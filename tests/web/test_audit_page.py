"""The page /audit in Chromium: six lying servers, each told from an honest one where a browser can see it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from quotary.client.source import CHECKPOINT
from tests.client.test_lying_logs import LIES, honest
from tests.fakes.authority import TS
from tests.fakes.browser import chromium
from tests.fakes.files import files_of
from tests.fakes.inprocess import local
from tests.fakes.log import policy_bytes, policy_document, tlog_policy

HOME = "http://localhost"
NOW = datetime.fromtimestamp(TS, UTC) + timedelta(seconds=60)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with local(tmp_path_factory.mktemp("audit")) as log:
        log.loop.round()
        yield log.client()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


class Server:
    """The site's own page and scripts, and whatever files of a log it is told to show."""

    def __init__(self, client: FlaskClient, files: Mapping[str, bytes]) -> None:
        self.client, self.files = client, files
        self.refused: list[str] = []

    def answer(self, route: Any) -> None:
        path = route.request.url.removeprefix(HOME).lstrip("/")
        if path == CHECKPOINT or path.startswith("tile/"):
            found = self.files.get(path)
            route.fulfill(status=200 if found is not None else 404, body=found or b"")
            return
        answer = self.client.get(f"/{path}")
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.data)


class Reader:
    """Somebody who opens the page again and again in one browser."""

    def __init__(self, browser: Any, server: Server) -> None:
        self.server, self.context = server, browser.new_context()
        self.context.route("**/*", server.answer)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda line: self.wrong.append(line.text) if line.type == "error" else None)
        self.at(NOW)

    def at(self, when: datetime) -> None:
        self.page.clock.set_fixed_time(when)

    def replay(self, elsewhere: bytes = b"", policy: str = "", limit: int = 20_000) -> str:
        self.page.goto(f"{HOME}/audit")
        self.page.evaluate(
            "([policy, elsewhere]) => { document.querySelector('[name=policy]').value = policy;"
            " document.querySelector('[name=elsewhere]').value = elsewhere; }",
            [policy or tlog_policy(), elsewhere.decode()],
        )
        self.page.fill("[name=limit]", str(limit))
        self.page.click("[name=start]")
        self.page.wait_for_selector("section[data-verdict]")
        verdict = self.page.locator("section[data-audit]").get_attribute("data-verdict")
        assert isinstance(verdict, str)
        return verdict

    def rows(self, outcome: str) -> list[str]:
        found: list[str] = self.page.locator(
            f"section[data-audit] tr.{outcome} td:nth-child(2)"
        ).all_inner_texts()
        return found

    def says(self) -> str:
        return str(self.page.locator("section[data-audit] [role=status]").inner_text())


@pytest.fixture
def reader(browser: Any, client: FlaskClient) -> Iterator[Reader]:
    found = Reader(browser, Server(client, files_of(honest().entries)))
    yield found
    found.context.close()


def test_an_honest_log_is_replayed_and_remembered(reader: Reader) -> None:
    log = honest()
    reader.server.files = files_of(log.entries)
    policy = policy_bytes(policy_document(genesis=log.genesis)).decode()
    assert reader.replay(policy=policy) == "could-not-check"
    assert {
        "every entry leads to the root",
        "status map, by every entry replayed",
        "who may sign for chat",
    } <= set(reader.rows("passed"))
    note = reader.server.files[CHECKPOINT]
    assert reader.replay(elsewhere=note, policy=policy) == "passed", reader.rows("not-checked")
    assert "Everything was replayed in this browser" in reader.says()
    assert "has accepted 5 entries" in reader.page.locator("[data-remembered]").inner_text()
    reader.page.click("[name=forget]")
    assert "remembers nothing" in reader.page.locator("[data-remembered]").inner_text()
    assert reader.wrong == []


@pytest.mark.parametrize(
    ("name", "verdict", "row"),
    [
        ("rollback", "mismatch", "not older than what this browser has seen"),
        ("frozen log", "refused", "age of the checkpoint"),
        ("forged map root", "mismatch", "status map, by every entry replayed"),
        ("un-revocation", "mismatch", "status map, by every entry replayed"),
        ("split view", "mismatch", "what somebody else was shown"),
        ("withheld entry", "refused", "what somebody else was shown"),
    ],
)
def test_a_lying_server_is_told_by_its_panel(reader: Reader, name: str, verdict: str, row: str) -> None:
    lie = LIES[name][0](honest())
    reader.server.files = lie.first
    assert reader.replay() == "could-not-check"
    assert reader.rows("failed") + reader.rows("refused") == []
    reader.server.files = lie.then
    reader.at(NOW + timedelta(seconds=lie.late))
    if lie.peers:  # What nobody can see from one place is said, and not passed.
        assert reader.replay() == "could-not-check"
        assert row in reader.rows("not-checked")
    assert reader.replay(elsewhere=lie.peers[0][CHECKPOINT] if lie.peers else b"") == verdict
    assert reader.rows("failed") + reader.rows("refused") == [row]
    assert {"mismatch": "✗ Contradiction", "refused": "▲ Refused"}[verdict] in reader.says()
    assert reader.wrong == []


def test_the_page_lets_one_worker_run_and_nothing_else(reader: Reader, client: FlaskClient) -> None:
    policy = client.get("/audit").headers["Content-Security-Policy"]
    assert "trusted-types quotary-audit;" in f"{policy};"
    assert "trusted-types 'none'" in client.get("/verify").headers["Content-Security-Policy"]
    reader.page.goto(f"{HOME}/audit")
    tried = reader.page.evaluate(
        """() => [
            () => new Worker("/static/verify.js", { type: "module" }),
            () => trustedTypes.createPolicy("quotary-audit", {}),
            () => trustedTypes.createPolicy("another", {}),
        ].map((attempt) => { try { attempt(); return "ran"; } catch (error) { return error.name; } })"""
    )
    assert tried == ["TypeError"] * 3
    assert len(reader.wrong) == 3, "each is reported by the browser"
