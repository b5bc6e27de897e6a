"""Command groups that import a command's module only when that command runs.

``quotary --help`` stays fast, and the library's command can name the groups of packages above it (registry,
builder, enclave, simulator) without importing them: an import string is not an import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import click

from quotary.errors import Unsupported

OUR_PACKAGES = frozenset({"quotary", "registry", "builder", "enclave", "simulator", "verifier", "private"})


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives and how the group's help introduces it.

    target:  ``module:attribute`` of a click command
    summary: one line for the list of commands
    section: heading in the list of commands
    extra:   the optional dependencies it needs, as in ``pip install 'quotary[extra]'``
    """

    target: str
    summary: str
    section: str = "Commands"
    extra: str | None = None

    def load(self) -> click.Command:
        """Import the command; raise ``Unsupported`` where its optional dependencies are not installed."""
        module, _, attribute = self.target.partition(":")
        try:
            command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in OUR_PACKAGES:
                raise
            raise Unsupported(
                f"this command needs the Python package {error.name}, which is not installed",
                next_command=f"pip install 'quotary[{self.extra}]'" if self.extra else "pip install quotary",
            ) from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return command


class LazyGroup(click.Group):
    """A group whose commands are import strings; ``base`` is a group of a package above that it adds to."""

    def __init__(
        self,
        name: str,
        lazy: Mapping[str, Lazy],
        *,
        summary: str,
        epilog: str | None = None,
        base: Lazy | None = None,
        params: list[click.Parameter] | None = None,
    ) -> None:
        super().__init__(name, help=summary, epilog=epilog, params=params)
        self.lazy = dict(lazy)
        self.base = base

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._inherited(ctx), *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            return self.lazy[cmd_name].load()
        base = self._base_group()
        return base.get_command(ctx, cmd_name) if base else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, summary in self._inherited(ctx).items():
            sections.setdefault("Commands", []).append((name, summary))
        for name, lazy in self.lazy.items():
            sections.setdefault(lazy.section, []).append((name, lazy.summary))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def _base_group(self) -> click.Group | None:
        command = self.base.load() if self.base else None
        return command if isinstance(command, click.Group) else None

    def _inherited(self, ctx: click.Context) -> dict[str, str]:
        base = self._base_group()
        if base is None:
            return {}
        found = {name: base.get_command(ctx, name) for name in base.list_commands(ctx)}
        return {name: command.get_short_help_str(100) for name, command in found.items() if command}
