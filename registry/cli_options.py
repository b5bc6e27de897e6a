"""What all commands of ``quotary registry`` share: their folder and their exit codes."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

EXITS = (
    "Exit codes: 0 done, 2 usage, 10 stored data contradict the entries, 11 refused (rolled back, clock), "
    "30 malformed, 40 could not find out."
)
F = TypeVar("F", bound=Callable[..., object])


def folder_option(command: F) -> F:
    """Add ``--dir``, the registry's folder."""
    folder = click.Path(path_type=Path, file_okay=False)
    return click.option("--dir", "folder", type=folder, required=True, help="The registry's folder.")(command)


def without_option(command: F) -> F:
    """Add ``--without``, for a machine that runs only some of a registry's parts."""
    parts = click.Choice(["signer", "sequencer"])
    text = "A part that another machine runs; repeatable."
    return click.option("--without", type=parts, multiple=True, help=text)(command)
