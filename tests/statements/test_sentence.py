"""Sentences about statements."""

import pytest

from quotary.statements.sentence import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 witnesses"), (1, "1 witness"), (2, "2 witnesses")])
def test_one_thing_is_named_in_the_singular(number: int, said: str) -> None:
    assert counted(number, "witness", "es") == said
