"""What all commands of ``quotary registry`` share: their folder and their exit codes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from quotary.errors import QuotaryError, Usage

if TYPE_CHECKING:
    from quotary.token.place import TokenPlace

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


def token_options(command: F) -> F:
    """Add the three options that put the log's Ed25519 key into a PKCS #11 token."""
    for name, said in (
        ("--hsm-pin-file", "File (mode 0600) with the user's PIN of the token."),
        ("--hsm", "Label of a PKCS #11 token that shall hold the log's Ed25519 key."),
        ("--hsm-module", "Path of the token's PKCS #11 library."),
    ):
        command = click.option(name, help=said)(command)
    return command


def token_place(
    origin: str, module: str | None, token: str | None, pin_file: str | None
) -> "TokenPlace | None":
    """Read the three options: all of them or none."""
    from quotary.token.place import TokenPlace

    if module and token and pin_file:
        return TokenPlace(module, token, f"{origin} log", str(Path(pin_file).resolve()))
    if module or token or pin_file:
        raise Usage("--hsm-module, --hsm and --hsm-pin-file go together")
    return None


@contextmanager
def ending_with_words() -> Iterator[None]:
    """Have a service say in its log why it ends, and end with the error's exit code."""
    from registry.logs import last_words

    try:
        yield
    except QuotaryError as error:
        last_words(error)
        sys.exit(error.exit_code)
