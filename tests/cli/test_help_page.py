"""docs/cli.md is the real ``--help``, and every ``--help`` shows an example and exit codes."""

import click

from quotary.cli import quotary
from tests.cli.help_page import PAGE, _walk, page


def test_the_page_is_the_real_help() -> None:
    assert PAGE.read_text() == page(), "rewrite it: python -m tests.cli.help_page"


def test_every_command_shows_an_example() -> None:
    for path, command, context in _walk("quotary", quotary, None):
        if not isinstance(command, click.Group):
            assert "xample" in command.get_help(context), path
