"""The site in a real browser: every page of the route table, in every way in which people look at pages.

The normal suite looks at each page in one view; the matrix of all pages and views is marked soak.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fakes.authority import measurement
from tests.fakes.browser import VIEWS, chromium, watched
from tests.fakes.processes import Log, start_log
from tests.fakes.site import addresses, history
from tests.web.payloads import payloads

SLICE = 12
"""Every so many of the texts goes through the browser in the normal suite; all of them in soak."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    found = start_log(tmp_path_factory.mktemp("manners"))
    try:
        found.submit(*history(found.authority))
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def pages(log: Log) -> list[str]:
    releases = [line["index"] for line in log.json("/releases.json")["releases"]][::-1]
    size = log.json("/log.json")["before"][0]["size"]
    asked = [
        f"/compare?old={releases[0]}&new={releases[1]}",
        "/search?q=chat",
        "/search?q=nothing",
        "/entries?kind=rebuild",
        "/verify/standalone.html",
    ]
    return [*(page for _, page, _ in addresses(releases, size)), *asked]


def look(log: Log, browser: Any, plan: dict[str, list[str]]) -> None:
    wrong = []
    for view, paths in plan.items():
        with watched(browser, log.address, view) as seen:
            for path in paths:
                seen.see(path)
        wrong += [f"{view}: {found}" for found in seen.wrong]
    assert wrong == []


@pytest.mark.browser
def test_every_page_is_readable_by_everybody_in_one_view(log: Log, browser: Any) -> None:
    every, views = pages(log), list(VIEWS)
    look(log, browser, {view: every[number :: len(views)] for number, view in enumerate(views)})


@pytest.mark.soak
@pytest.mark.browser
@pytest.mark.parametrize("view", VIEWS)
def test_every_page_is_readable_by_everybody_in_every_view(log: Log, browser: Any, view: str) -> None:
    look(log, browser, {view: pages(log)})


@pytest.mark.browser
def test_a_page_that_breaks_a_rule_is_seen(log: Log, browser: Any) -> None:
    """What the tests above rest on: each kind of wrong is found where it is."""
    with watched(browser, log.address, "narrow") as seen:
        seen.page.route("**/", lambda route: route.fulfill(content_type="text/html", body=BAD))
        seen.see("/")
    words = " ".join(seen.wrong)
    for word in ("wider than the window", "image-alt", "example.invalid", "ours is broken"):
        assert word in words


BAD = """<!doctype html><html lang=en><title>x</title><main><h1>x</h1><img src=data:,><div style=width:900px>x</div>
<script>console.error('ours is broken'); fetch('http://example.invalid/').catch(() => 0)</script></main>"""


@pytest.mark.browser
def test_the_keyboard_reaches_the_content_first(log: Log, browser: Any) -> None:
    with watched(browser, log.address) as seen:
        seen.goto("/")
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert seen.page.locator(".skip").bounding_box()["x"] >= 0
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_url("**/#main")


# --- Texts that try to become code ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A log whose builders wrote the texts into everything that they may write freely."""
    found = start_log(tmp_path_factory.mktemp("hostile"))
    made = found.authority
    texts = [text for text in payloads() if text.isprintable()]
    try:
        found.submit(made.allocation(), made.delegation())
        for number in range(0, len(texts), 40):
            some = texts[number : number + 40]
            release = made.release(
                f"seed {number}", source={"uri": "".join(some[:20])[:1000], "revision": "01" * 20}
            )
            rebuild = made.rebuild(
                release, {f"seed {number}": True}, organisation=some[0][:100], tool=some[1][:100]
            )
            revocation = made.revocation(
                release, reason="".join(some[20:])[:512], advisory="".join(some[:5])[:256]
            )
            found.submit(release, rebuild, revocation)
        yield found
    finally:
        found.stop()


@pytest.mark.browser
def test_no_text_in_the_log_becomes_code_on_any_page(hostile: Log, browser: Any) -> None:
    with watched(browser, hostile.address) as seen:
        for path in pages(hostile):
            seen.goto(path)
            assert seen.calls() == [], path
    assert seen.wrong == []


def through_the_browser(log: Log, browser: Any, texts: list[str]) -> None:
    with watched(browser, log.address) as seen:
        for text in texts:
            seen.goto("/search?" + urlencode({"q": text}))
            assert seen.calls() == [], text
        seen.goto("/verify")
        for text in texts:
            for box in ("#subject", "#entry", "#keys"):
                seen.page.evaluate(
                    "([box, text]) => { document.querySelector(box).value = text }", [box, text]
                )
            seen.page.click("section[data-paste] button")
            seen.page.wait_for_selector("section[data-verdict]")
            assert seen.calls() == [], text
    assert seen.wrong == []


@pytest.mark.browser
def test_no_text_that_is_typed_or_pasted_becomes_code(log: Log, browser: Any) -> None:
    through_the_browser(log, browser, payloads()[::SLICE])


@pytest.mark.soak
@pytest.mark.browser
def test_none_of_two_hundred_texts_that_are_typed_or_pasted_becomes_code(log: Log, browser: Any) -> None:
    through_the_browser(log, browser, payloads())


# --- Three people with one question each -----------------------------------------------------------------------------


@pytest.mark.browser
def test_a_journalist_finds_what_was_withdrawn_and_why_in_one_click(log: Log, browser: Any) -> None:
    with watched(browser, log.address, "without JavaScript") as seen:
        seen.goto("/")
        assert "Which programs may read a prompt" in seen.page.inner_text("h1")
        seen.follow("nav[aria-label=Site] >> text=Revocations")
        assert "keys <leaked> & gone" in seen.page.inner_text("main")
        assert "Nothing is ever removed" in seen.page.inner_text(".lead")
    assert seen.wrong == []


@pytest.mark.browser
def test_a_responder_pastes_a_measurement_and_sees_status_release_and_when(log: Log, browser: Any) -> None:
    with watched(browser, log.address) as seen:
        seen.goto("/")
        seen.page.fill("#q", "0x" + measurement("old").hex().upper())
        with seen.page.expect_navigation():
            seen.page.press("#q", "Enter")
        seen.follow("text=Every role of this digest")
        assert "revoked" in seen.page.inner_text("main li")
        seen.follow("main li a")
        assert "revoked" in seen.page.inner_text("h1")
        seen.follow("dd a[href^='/releases/']")
        assert "revoked: keys <leaked> & gone" in seen.page.inner_text("main")
    assert seen.wrong == []


@pytest.mark.browser
def test_an_architect_gets_the_bytes_the_proof_and_the_check_of_his_own_browser(
    log: Log, browser: Any
) -> None:
    with watched(browser, log.address) as seen:
        seen.goto("/entries/1")
        seen.page.wait_for_selector("section[data-outcome=passed]")
        links = seen.page.locator("section[aria-labelledby=yourself] a")
        assert links.all_inner_texts() == ["Entry bytes", "Proof", "JSON"]
        for link in links.all():
            assert log.request("GET", link.get_attribute("href")).status == 200
    assert seen.wrong == []
