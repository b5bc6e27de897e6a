"""The documents: every link leads somewhere, and the README promises the two commands."""

import re

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_named_document_exists(page) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if not link.startswith("http")]
    missing = [link for link in links if not (page.parent / link).exists()]
    named = set(re.findall(r"`(docs/[a-z0-9/_-]+\.md)`", text))
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_every_page_of_formats_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "formats.md").read_text()
    pages = {page.name for page in (ROOT / "docs" / "formats").glob("*.md")}
    assert pages == set(re.findall(r"formats/([a-z0-9-]+\.md)", index))


def test_the_readme_promises_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = (ROOT / "Makefile").read_text()
    for command in ("make demo", "make test"):
        assert command in readme
        assert f"\n{command.removeprefix('make ')}:" in targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_was_left_half_merged(page) -> None:
    assert re.findall(r"^(?:<{7}|={7}$|>{7})", page.read_text("utf-8"), re.MULTILINE) == []
