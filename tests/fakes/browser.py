"""Debian's Chromium driven by Playwright, the ways in which people look at a page, and what must never happen there."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import web

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE = {"viewport": {"width": 1200, "height": 800}}
VIEWS: Mapping[str, Mapping[str, Any]] = {
    "light": {**WIDE, "color_scheme": "light"},
    "dark": {**WIDE, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 320, "height": 640}},
    "without JavaScript": {**WIDE, "java_script_enabled": False},
    "forced colours": {**WIDE, "forced_colors": "active"},
}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOK = """async tags => {
    const found = await axe.run({runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']});
    const said = found.violations.flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html.slice(0, 200)}`));
    return [found.passes.length, said];
}"""
CALLED = "window.called = []; for (const name of ['alert', 'confirm', 'prompt']) window[name] = (...words) => { window.called.push(name) };"


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser, or skip the test with what is missing."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


def chromium_says(harness: Path, call: str, questions: Any) -> Any:
    """Let a function that a script of ours exports answer in the browser, beside the site's modules."""

    def serve(route: Any) -> None:
        name = route.request.url.removeprefix("http://localhost/")
        path = harness if name == harness.name else web.FOLDER / "static" / name
        body = path.read_text("utf-8") if name else "<!doctype html>"
        route.fulfill(body=body, content_type="text/javascript" if name else "text/html")

    with chromium() as started:
        page = started.new_page()
        page.route("**/*", serve)
        page.goto("http://localhost/")
        return page.evaluate(
            """async ([name, call, questions]) => {
                globalThis.QUOTARY_STATIC = "/";
                return (await import(`/${name}`))[call](questions);
            }""",
            [harness.name, call, questions],
        )


@dataclass(slots=True)
class Watched:
    """One page, and everything about it that no page of ours may do; ``wrong`` lists it."""

    page: Any
    home: str
    runs_scripts: bool = True
    wrong: list[str] = field(default_factory=list)

    def goto(self, path: str) -> None:
        self.page.goto(self.home + path)

    def follow(self, selector: str) -> None:
        """Click on what leads to another page, and be there."""
        with self.page.expect_navigation():
            self.page.click(selector)

    def see(self, path: str) -> None:
        """Go there, and list what is wrong with what stands there: too wide, or against the rules of axe."""
        self.goto(path)
        if not self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            self.wrong.append(f"{path}: wider than the window")
        if self.runs_scripts:  # axe waits for timers, which do not run without; the markup is the same
            self.wrong += [f"{path}: {found}" for found in violations(self.page)]

    def calls(self) -> list[str]:
        """Give what foreign scripts called, had they run."""
        found = self.page.evaluate("window.called ?? []")
        assert isinstance(found, list)
        return found


@contextmanager
def watched(browser: Any, home: str, view: str = "light") -> Iterator[Watched]:
    """Open a page in one of ``VIEWS``."""
    context = browser.new_context(**VIEWS[view])
    context.add_init_script(CALLED)
    page = context.new_page()
    found = Watched(page, home, VIEWS[view].get("java_script_enabled", True))
    wrong = found.wrong
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on(
        "console", lambda line: wrong.append(f"{page.url}: {line.text}") if line.type == "error" else None
    )
    page.on("dialog", lambda dialog: (wrong.append(f"{page.url}: a dialog"), dialog.dismiss()))
    page.on("request", lambda asked: None if _ours(asked.url, home) else wrong.append(f"asked {asked.url}"))
    yield found
    if context.cookies():
        wrong.append("a cookie was set")
    context.close()


def violations(page: Any) -> list[str]:
    """Let axe look at the page as it stands."""
    page.evaluate(axe())
    passed, broken = page.evaluate(LOOK, RULES)
    assert passed, "axe looked at nothing"
    assert isinstance(broken, list)
    return broken


@cache
def axe() -> str:
    """Give axe-core's script, which stands in a wheel of the development environment."""
    package = pytest.importorskip("axe_playwright_python", reason="no axe-core: make venv installs it")
    return (Path(package.__file__).parent / "axe.min.js").read_text("utf-8")


def _ours(url: str, home: str) -> bool:
    return url.startswith((home + "/", "data:", "blob:", "file:"))
