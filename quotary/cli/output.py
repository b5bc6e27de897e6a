"""How answers look: on stdout, with and without a terminal the same; ``--json`` is stable."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from quotary.client.verdict import Check

F = TypeVar("F", bound=Callable[..., Any])

_MARKS = {"ok": "ok", "failed": "FAILED", "not checked": "not checked"}


def json_option(command: F) -> F:
    """Add ``--json`` to a command, as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one stable JSON object.")(command)


def emit(document: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """Print an answer in the form that was asked for; what others wrote moves no cursor in either."""
    click.echo(json.dumps(document, indent=2) if as_json else visible(text))


def visible(text: str) -> str:
    """Spell out what a terminal would obey, or hide: all but printable characters and line feeds."""
    return "".join(letter if letter.isprintable() or letter == "\n" else _spelt(letter) for letter in text)


def word(value: object) -> str:
    """Write what somebody else said as part of one line."""
    return "".join(letter if letter.isprintable() else _spelt(letter) for letter in str(value))


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def table(checks: "Sequence[Check]") -> str:
    """Lay checks out: the mark and the name in columns, what it rests on in full below."""
    if not checks:
        return "  nothing was checked"
    marks = [_MARKS[check.outcome] for check in checks]
    width, names = max(map(len, marks)), max(len(check.name) for check in checks)
    lines = []
    for mark, check in zip(marks, checks, strict=True):
        lines.append(f"  {mark:<{width}}  {check.name:<{names}}  {word(check.found)}")
        indent = " " * (width + names + 6)
        lines.append(f"{indent}wanted {word(check.wanted)}; against {word(check.anchor)}; by {check.by}")
    return "\n".join(lines)


def summary(checks: "Sequence[Check]") -> str:
    """Count the outcomes in words; what was not checked is never left out."""
    ok = sum(check.outcome == "ok" for check in checks)
    skipped = sum(check.outcome == "not checked" for check in checks)
    words = f"{ok} check{'' if ok == 1 else 's'} held"
    return f"{words}, {skipped} not checked" if skipped else words
