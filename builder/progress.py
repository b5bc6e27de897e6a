"""What a person sees while Nix works."""

import time

import click


class Progress:
    """One line on stderr a step, with the seconds since the start."""

    __slots__ = ("_start",)

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        click.echo(f"{time.monotonic() - self._start:6.1f} s  {line}", err=True)
