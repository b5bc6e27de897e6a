"""Writes docs/cli.md from the real ``--help`` of every command: ``python -m tests.cli.help_page``."""

from collections.abc import Iterator
from pathlib import Path

import click

from quotary.cli import quotary

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

HEAD = """# Command line

Every command's own `--help`, held equal by a test; rewrite this page with `python -m tests.cli.help_page`. Answers go to stdout,
everything else to stderr; `--json` is stable. Environment: `QUOTARY_POLICY` (policy file), `QUOTARY_LOG` (address of a log),
`QUOTARY_TRUST` (folder of accepted checkpoints, else `$XDG_STATE_HOME/quotary/trust`).
"""


def page() -> str:
    """Give the page as it should be."""
    return HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    for path, command, context in _walk("quotary", quotary, None):
        text = command.get_help(context)
        lines = "\n".join(line.rstrip() for line in text.split("\n"))
        yield f"\n## {path}\n\n```\n{lines}\n```\n"


def _walk(
    path: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(
        command, info_name=path.split(" ")[-1], parent=parent, terminal_width=100, max_content_width=100
    )
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _walk(f"{path} {name}", found, context)


if __name__ == "__main__":
    PAGE.write_text(page())
