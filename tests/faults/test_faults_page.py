"""docs/faults.md is true: the tests it names exist, none is left out, and each crash point and bar has its row."""

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "::" in line]
NAMED = re.findall(r"(soak )?`(tests/[a-z_/0-9]+\.py)::(test_[a-z0-9_]+)`", PAGE)
CRASH_POINTS = (
    "before the commit",
    "after the commit, before publishing",
    "while witnesses are asked",
    "two sequencers",
    "the clock goes back",
    "disk full, torn page",
    "database restored from an old backup",
    "a commit that reports an error",
)
BARS = ("A1", "A2", "A3", "A6", "A7", "A8", "A9", "A10", "A11", "A12", "A13")


def names_in(path: str) -> dict[str, bool]:
    """Every test of a file, and whether it is a soak."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"
    ]
    return {node.name: any("soak" in ast.unparse(mark) for mark in node.decorator_list) for node in functions}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.strip("| ").partition(" |")[0].replace(" ", "-"))
def test_each_row_names_tests_that_exist(row: str) -> None:
    for soak, path, name in re.findall(r"(soak )?`(tests/[a-z_/0-9]+\.py)::(test_[a-z0-9_]+)`", row):
        assert names_in(path)[name] == bool(soak), name


def test_every_test_of_a_bar_is_named() -> None:
    files = sorted((ROOT / "tests" / "faults").glob("test_*.py"))
    bars = {name for path in files for name in names_in(str(path)) if re.match(r"test_a\d+_", name)}
    assert bars <= {name for _, _, name in NAMED}


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_each_crash_point_has_a_row(point: str) -> None:
    assert any(row.startswith(f"| {point}") for row in ROWS)


@pytest.mark.parametrize("bar", BARS)
def test_each_bar_has_a_row_whose_tests_carry_its_number(bar: str) -> None:
    rows = [row for row in ROWS if row.startswith(f"| {bar} |")]
    assert rows
    assert all(f"::test_{bar.lower()}_" in row for row in rows)
