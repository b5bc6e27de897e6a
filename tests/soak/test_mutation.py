"""No check can be lost unnoticed: every call and refusal of every verification is deleted once (``make soak``)."""

import ast

import pytest

from tests.soak.mutate import ROOT, mutants, run
from tests.soak.targets import TARGETS


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_every_deleted_call_is_noticed_by_a_test(name: str) -> None:
    found = tuple(mutants(TARGETS[name]))
    assert found, "nothing to delete is a mistake of the search"
    fates = tuple(run(TARGETS[name], found))
    print("\n".join(str(fate) for fate in fates))
    assert [str(fate) for fate in fates if fate.killer is None] == []


@pytest.mark.parametrize("name", TARGETS)
def test_every_mutant_is_a_program_that_differs(name: str) -> None:
    texts = {file: (ROOT / file).read_text() for file in TARGETS[name].functions}
    trees = {file: ast.dump(ast.parse(text)) for file, text in texts.items()}
    found = tuple(mutants(TARGETS[name]))
    assert found
    for mutant in found:
        assert ast.dump(ast.parse(mutant.source(texts[mutant.file]))) != trees[mutant.file], str(mutant)
