"""``docs/errors.md`` is true: its tests exist, its codes and problem types are those of the code."""

import ast
import re
from collections.abc import Iterator

import pytest

import quotary.errors
from quotary.cli import EXIT_CODES, INTERRUPTED
from quotary.errors import QuotaryError
from registry.problems import KINDS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
CASES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "::" in line
]
DEMANDED = (
    "malformed statement", "wrong signature", "no authority", "oversized body", "unknown index", "wrong nonce",
    "truncated stream", "replayed request", "stale checkpoint", "missing firmware", "nix absent",
    "sandbox absent", "port in use", "full disk",
)  # fmt: skip


def codes() -> set[int]:
    """Every exit code that an error of ours carries, and those that are no error."""
    found = {kind.exit_code for kind in vars(quotary.errors).values() if _is_error(kind)}
    return found | {0, INTERRUPTED}


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, QuotaryError)


def functions_of(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].replace(" ", "-"))
def test_each_case_has_its_test_its_code_and_its_problem(case: list[str]) -> None:
    happened, seen, why, remedy, code, problem, test = case
    assert all((happened, seen, why, remedy))
    assert int(code) in codes()
    assert problem == "" or problem.strip("`") in KINDS
    path, _, name = test.strip("`").partition("::")
    assert name in set(functions_of(path)), test


@pytest.mark.parametrize("demanded", DEMANDED)
def test_no_case_that_was_promised_is_left_out(demanded: str) -> None:
    assert any(case[0].lower().startswith(demanded) for case in CASES)


def test_every_code_and_every_problem_type_is_explained() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert listed == codes()
    shown = {int(code) for code in re.findall(r"^ +(\d+)  ", EXIT_CODES, re.MULTILINE)}
    assert shown == listed - {INTERRUPTED}
    told = {case[5].strip("`") for case in CASES}
    # "http" is whatever the web server itself refuses, e.g. a request line that is too long; nothing that
    # can be submitted today is "not-authorised" without the narrower reason of "not-admitted".
    assert set(KINDS) - told == {"http", "not-authorised"}
