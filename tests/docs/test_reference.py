"""The pages to look things up name what the code knows, and the index leads to every page."""

import re

from registry.config import NUMBERS
from registry.metrics import HELP, Meters
from tests.conftest import ROOT
from tests.test_environment_reads import REVIEWED

DOCS = ROOT / "docs"
SET_BY_US = {
    "gunicorn.socket",
    "CUBLAS_WORKSPACE_CONFIG",
    "LIBRARIES",
    "TOOLS",
    "HOME",
    "PATH",
    "TMPDIR",
    "*",
}


def rows(page: str) -> dict[str, list[str]]:
    """Give the cells of each table row that begins with a name in code, by each of its names."""
    lines = [line for line in (DOCS / page).read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {name: row[1:] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_metric_of_a_registry_stands_on_the_page() -> None:
    counted = {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.documentation
        for metric in Meters().registry.collect()
    }
    said = {f"quotary_{name}": text for name, text in HELP.items()}
    expected = {**counted, **said, "quotary_store_up": "1 if the database answers."}
    assert {name: row[-1] for name, row in rows("metrics.md").items()} == expected
    text = (DOCS / "metrics.md").read_text("utf-8")
    assert set(re.findall(r"quotary_[a-z_]+", text)) <= set(expected)


def test_every_number_of_a_registry_stands_on_the_page_with_its_bounds() -> None:
    found = rows("configuration.md")
    for name, (low, high, usual) in NUMBERS.items():
        if not name.startswith(("address", "builder")):
            assert found[name][:2] == [f"{low:g}, {high:g}", f"{usual:g}"], name
        assert name in found


def test_every_variable_that_changes_where_things_lie_stands_on_the_page() -> None:
    read = {name for _, name in REVIEWED} - SET_BY_US
    assert read <= set(rows("configuration.md"))


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    assert set(re.findall(r"\(([a-z-]+\.md)[#)]", index)) == {page.name for page in DOCS.glob("*.md")} - {
        "README.md"
    }
