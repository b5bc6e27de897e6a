"""Which check names the code of some modules can raise, read out of their syntax.

A name is written where it is raised, handed to a function that raises it, or stands first in a row of a
table that a loop of the same function goes through. Nothing else decides what ``docs/checks.md`` must list.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

RAISED = ("Rejected", "Refused")

Templates = dict[str, set[tuple[int, str]]]


def checks_of(files: Sequence[Path], library: Sequence[Path]) -> set[str]:
    """Give the names that ``files`` can raise; ``library`` has the functions that may be handed them."""
    handed = _handed([ast.parse(path.read_text()) for path in library])
    trees = [ast.parse(path.read_text()) for path in files]
    spelt = {name for tree in trees for call in _calls(tree) for name in _names(call, handed)}
    return spelt | {name for tree in trees for name in _rows(tree, handed)}


def _handed(trees: Sequence[ast.Module]) -> Templates:
    """Find, by name of function, which argument becomes a check's name, and how."""
    found: Templates = {name: {(0, "{}")} for name in RAISED}
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for _ in range(4):
        for function in functions:
            parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
            for call in _calls(function):
                for index, template in found.get(_called(call), set()).copy():
                    text = _template(call.args[index]) if index < len(call.args) else None
                    if text is not None and text[0] in parameters:
                        place = parameters.index(text[0]), template.replace("{}", text[1])
                        found.setdefault(function.name, set()).add(place)
    return found


def _template(argument: ast.expr) -> tuple[str, str] | None:
    """A parameter by itself, or one with a word behind it."""
    if isinstance(argument, ast.Name):
        return argument.id, "{}"
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.FormattedValue):
        inner = argument.values[0].value
        rest = "".join(
            part.value
            for part in argument.values[1:]
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
        return (inner.id, "{}" + rest) if isinstance(inner, ast.Name) else None
    return None


def _names(call: ast.Call, handed: Templates) -> Iterator[str]:
    for index, template in handed.get(_called(call), set()):
        argument = call.args[index] if index < len(call.args) else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield template.replace("{}", argument.value)


def _rows(tree: ast.Module, handed: Templates) -> Iterator[str]:
    """What a loop goes through where its variable is raised or handed on: a table's first words, or a list."""
    for function in ast.walk(tree):
        for loop in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            if isinstance(loop, ast.For):
                names = {name.id for name in ast.walk(loop.target) if isinstance(name, ast.Name)}
                for call in _calls(loop):
                    for index, _ in handed.get(_called(call), set()):
                        written, spoken = _spoken(call.args[index] if index < len(call.args) else None)
                        if written in names:
                            yield from (spoken(word) for word in _words(function, loop))


def _spoken(argument: ast.expr | None) -> tuple[str, Callable[[str], str]]:
    """A variable by itself, or ``name.replace("_", " ")``."""
    if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Attribute):
        return _spoken(argument.func.value)[0], lambda word: word.replace("_", " ")
    return (argument.id if isinstance(argument, ast.Name) else ""), str


def _words(function: ast.FunctionDef, loop: ast.For) -> Iterator[str]:
    if isinstance(loop.iter, ast.Tuple):
        yield from (word.value for word in loop.iter.elts if isinstance(word, ast.Constant))
    else:
        yield from _firsts(function)


def _firsts(function: ast.FunctionDef) -> Iterator[str]:
    for row in ast.walk(function):
        if isinstance(row, ast.Tuple) and len(row.elts) > 1:
            first = row.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""
