"""``docs/requirements.md`` lists each attack with the tests that perform it, and each of them is there."""

import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "requirements.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| C[0-9]", line)]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_each_of_the_thirty_attacks_has_its_row_and_a_test() -> None:
    assert [cells(row)[0] for row in ROWS] == [f"C{number}" for number in range(1, 31)]
    for row in ROWS:
        number, attack, kept, tests, _ = cells(row)
        assert attack, number
        assert kept, number
        assert NAMED.search(tests), number


def test_each_named_test_is_there() -> None:
    missing = []
    for path, name in sorted(set(NAMED.findall(PAGE))):
        tree = ast.parse((ROOT / path).read_text("utf-8")) if (ROOT / path).is_file() else ast.Module([], [])
        known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        missing += [] if name in known else [f"{path}::{name}"]
    assert missing == []


def test_no_test_is_named_that_the_suite_leaves_out_without_a_word() -> None:
    """A cell of tests holds names of tests and nothing else."""
    for row in ROWS:
        assert re.sub(NAMED, "", cells(row)[3]).strip(" ,") == "", row[:6]


def test_what_is_named_for_one_attack_says_so() -> None:
    """A test that bears a requirement's number stands in that requirement's row."""
    rows = {cells(row)[0].lower(): row for row in ROWS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for number, name in re.findall(
            r"^def (?=test_(c[0-9]+)_)(test_\w+)", path.read_text("utf-8"), re.MULTILINE
        ):
            if number in rows:
                assert name in rows[number], f"{path}: {name}"
