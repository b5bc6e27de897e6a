"""conformance/C2SP.md is true: each rule names tests, and the tests exist."""

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "conformance" / "C2SP.md").read_text("utf-8")
SECTIONS = PAGE.split("\n## c2sp.org/")[1:]
SPECIFICATIONS = (
    "signed-note",
    "tlog-checkpoint",
    "tlog-cosignature",
    "tlog-tiles",
    "tlog-proof",
    "tlog-policy",
    "tlog-witness",
)
ROWS = [row for section in SECTIONS for row in section.splitlines() if row.startswith("| ")]
RULES = [row for row in ROWS if not row.startswith(("| rule |", "| --- |"))]
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def test_each_specification_that_we_speak_has_its_rules() -> None:
    assert [section.partition("\n")[0] for section in SECTIONS] == list(SPECIFICATIONS)
    assert len(RULES) > 50


@pytest.mark.parametrize("row", RULES, ids=lambda row: row[2:60].replace(" ", "-"))
def test_each_rule_names_tests_that_exist(row: str) -> None:
    named = NAMED.findall(row)
    assert named
    assert len(named) == row.count("::")
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
