"""Call sites of the code that decides whether a prompt is answered, and an exception forced at any one of them.

Sites are enumerated from the syntax trees, so that code which is written tomorrow is searched tomorrow. A site is
broken in the running process: its function gets the code of a copy in which this one call raises.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType, ModuleType

FORCED = "__forced__"


@dataclass(frozen=True, slots=True)
class Site:
    """The ``number``-th call in a function's source, from its top."""

    module: str
    function: str
    number: int
    line: int
    end: int
    text: str

    def ran(self, seen: set[tuple[str, int]]) -> bool:
        """Tell whether a line of this call was run."""
        return any((self.module, line) in seen for line in range(self.line, self.end + 1))

    def __str__(self) -> str:
        return f"{self.module}.{self.function}:{self.line} {self.text}"


@dataclass(slots=True)
class Hits:
    """How often the broken call was made."""

    count: int = 0
    raised: list[BaseException] = field(default_factory=list)


def sites_of(modules: Sequence[str]) -> list[Site]:
    """Every call inside a function of these modules."""
    found = []
    for name in modules:
        tree = _tree(importlib.import_module(name))
        for function, node in _functions(tree):
            calls = _calls(node)
            found += [
                Site(
                    name,
                    function,
                    number,
                    call.lineno,
                    call.end_lineno or call.lineno,
                    ast.unparse(call.func),
                )
                for number, call in enumerate(calls)
            ]
    return found


@contextmanager
def traced(modules: Sequence[str]) -> Iterator[set[tuple[str, int]]]:
    """Collect which lines of these modules run in this thread, as (module, line)."""
    names = {str(importlib.import_module(name).__file__): name for name in modules}
    seen: set[tuple[str, int]] = set()

    def line(frame: FrameType, event: str, _: object) -> object:
        if event == "line":
            seen.add((names[frame.f_code.co_filename], frame.f_lineno))
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, event, _: line if frame.f_code.co_filename in names else None)
    try:
        yield seen
    finally:
        sys.settrace(before)


@contextmanager
def broken(site: Site, error: Callable[[], BaseException]) -> Iterator[Hits]:
    """Make the call at this site raise ``error()``; its arguments are still evaluated."""
    module, hits = importlib.import_module(site.module), Hits()

    def forced(*_: object, **__: object) -> None:
        hits.count += 1
        raise error()

    function = _function(module, site.function)
    before = function.__code__
    vars(module)[FORCED] = forced
    function.__code__ = _broken_code(module, site)
    try:
        yield hits
    finally:
        function.__code__ = before
        del vars(module)[FORCED]


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    yield f"{node.name}.{member.name}", member


def _calls(function: ast.FunctionDef) -> list[ast.Call]:
    """Calls of the body in the order of the text; what decorators and defaults call happens at import."""
    calls = [node for part in function.body for node in ast.walk(part) if isinstance(node, ast.Call)]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset, -(call.end_col_offset or 0)))


def _broken_code(module: ModuleType, site: Site) -> CodeType:
    tree = _tree(module)
    call = _calls(dict(_functions(tree))[site.function])[site.number]
    call.args = [call.func, *call.args]
    call.func = ast.copy_location(ast.Name(FORCED, ast.Load()), call.func)
    compiled = compile(ast.fix_missing_locations(tree), str(module.__file__), "exec")
    return next(code for code in _codes(compiled) if code.co_qualname == site.function)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield item
            yield from _codes(item)


def _function(module: ModuleType, name: str) -> FunctionType:
    owner, _, member = name.rpartition(".")
    found = vars(getattr(module, owner))[member] if owner else getattr(module, member)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, classmethod | staticmethod):
        found = found.__func__
    found = inspect.unwrap(found)
    assert isinstance(found, FunctionType)
    return found
