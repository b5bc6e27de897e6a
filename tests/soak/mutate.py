"""Deletes one call, one refusal or one reason of a refusal at a time; some test must notice each.

A mutant is a copy of the packages in which one statement of one function became ``pass``: a call (with what
it assigns), or an ``if`` that only raises; or in which such an ``if`` lost one of its several reasons, as in
``a or b`` and ``not a <= b <= c``. The working tree is never written to. A check that can be deleted without
a failing test is a check that the next change may lose.

The real data is out of reach of these tests: what they notice, they notice with keys of our own.

    python -m tests.soak.mutate judge tdx
"""

import ast
import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.soak.target import Target
from tests.soak.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = (
    "quotary",
    "enclave",
    "registry",
    "builder",
    "simulator",
    "verifier",
    "private",
    "tests",
    "docs",
    "migrations",
)
# A guard against a loop without end; the longest of these files takes half a minute alone.
LONGEST_SECONDS = 600
# What the time budgets say on a busy machine is not about the mutant.
WITHOUT = "not milliseconds and not quickly"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One deletion. span: first line (counted from 1), first byte in it, last line, byte behind the end."""

    file: str
    function: str
    span: tuple[int, int, int, int]
    left: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.span[0]} {self.function}: {self.what}"

    def source(self, text: str) -> str:
        """Give the file's text with ``left`` in place of what is deleted."""
        lines = text.encode().splitlines(keepends=True)
        first, start, last, end = self.span
        before = b"".join([*lines[: first - 1], lines[first - 1][:start]])
        behind = b"".join([lines[last - 1][end:], *lines[last:]])
        return (before + self.left.encode() + behind).decode()


@dataclass(frozen=True, slots=True)
class Fate:
    """What happened to a mutant: the test that noticed it, or None."""

    mutant: Mutant
    killer: str | None

    def __str__(self) -> str:
        return f"{self.mutant}  {f'killed by {self.killer}' if self.killer else 'SURVIVED'}"


def mutants(target: Target) -> Iterator[Mutant]:
    """Find everything in a target that can be deleted; classes of a file may have functions of one name."""
    for file, names in target.functions.items():
        tree = ast.parse((ROOT / file).read_text())
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        missing = set(names) - {node.name for node in found}
        if missing:
            raise SystemExit(f"{file} has no function {', '.join(sorted(missing))}")
        for node in found:
            if not names or node.name in names:
                yield from _of_function(file, node)


def run(target: Target, chosen: Sequence[Mutant]) -> Iterator[Fate]:
    """Try mutants, one at a time on each processor; first the tests must hold for the unchanged copy."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for copy in _copies(Path(folder), workers):
            _require_copy(copy)
            copies.put(copy)
        broken = _killer(copy, target.tests)
        if broken is not None:
            raise SystemExit(f"the tests fail before anything is deleted: {broken}")
        yield from pool.map(lambda mutant: _fate(copies, mutant, target.tests), chosen)


def main(names: Sequence[str]) -> int:
    """Report every mutant of the named targets (all without a name); 1 if one survived or none was found."""
    survived = total = 0
    for name in names or TARGETS:
        for fate in run(TARGETS[name], tuple(mutants(TARGETS[name]))):
            print(f"{name}: {fate}", flush=True)
            total += 1
            survived += fate.killer is None
    print(f"{total} mutants, {total - survived} killed, {survived} survived")
    return 1 if survived or not total else 0


def _of_function(file: str, function: ast.FunctionDef) -> Iterator[Mutant]:
    for statement in _deletable(function.body):
        what = ast.unparse(statement).splitlines()[0][:90]
        yield Mutant(file, function.name, _span(statement), "pass", what)
        if isinstance(statement, ast.If):
            for left in _weaker(statement.test):
                said = f"{what} -> {ast.unparse(left)[:90]}"
                yield Mutant(file, function.name, _span(statement.test), f"({ast.unparse(left)})", said)


def _deletable(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.Expr | ast.Assign) and isinstance(statement.value, ast.Call):
            if not _only_tells(statement):
                yield statement
        elif isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Raise):
            yield statement
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from _deletable(getattr(statement, part, ()))


def _weaker(test: ast.expr, denied: bool = False) -> Iterator[ast.expr]:
    """Give the condition without one of its reasons, each in turn: what is left refuses less.

    denied: the condition stands under a ``not``, where an ``and`` has the reasons and not an ``or``
    """
    match test:
        case ast.UnaryOp(ast.Not(), inner):
            yield from (ast.UnaryOp(ast.Not(), left) for left in _weaker(inner, not denied))
        case ast.BoolOp(operator, values):
            for at, value in enumerate(values):
                if isinstance(operator, ast.And) == denied:
                    yield ast.BoolOp(operator, [*values[:at], *values[at + 1 :]])
                for left in _weaker(value, denied):
                    yield ast.BoolOp(operator, [*values[:at], left, *values[at + 1 :]])
        case ast.Compare(left, [_, _, *_] as operators, values) if denied:
            yield ast.Compare(values[0], operators[1:], values[1:])
            yield ast.Compare(left, operators[:-1], values[:-1])


def _span(node: ast.stmt | ast.expr) -> tuple[int, int, int, int]:
    last, end = node.end_lineno, node.end_col_offset
    assert last is not None
    assert end is not None
    return node.lineno, node.col_offset, last, end


def _only_tells(statement: ast.Expr | ast.Assign) -> bool:
    """Logging, and numbers for a person, decide nothing."""
    return ast.unparse(statement.value).startswith(("log.", "time.", "sorted(", "', '.join"))


def _copies(folder: Path, count: int) -> Iterator[Path]:
    """Copy the packages once for each worker, compiled: a module is compiled again only where its text differs."""
    first = folder / "0"
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / name, first / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", first)
    compileall.compile_dir(first, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    yield first
    for number in range(1, count):
        yield Path(shutil.copytree(first, folder / str(number)))


def _fate(copies: SimpleQueue[Path], mutant: Mutant, tests: Sequence[str]) -> Fate:
    copy = copies.get()
    file = copy / mutant.file
    whole = file.read_text()
    file.write_text(mutant.source(whole))
    fate = Fate(mutant, _killer(copy, tests))
    file.write_text(whole)
    copies.put(copy)
    return fate


def _environment(copy: Path) -> dict[str, str]:
    # Without the plugins of other tools a run starts in a third of the time.
    found = {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "QUOTARY_VECTORS": str(copy / "no vectors"),
    }
    return os.environ | found


def _require_copy(copy: Path) -> None:
    """The subprocess must import the copy, or every mutant would survive for the wrong reason."""
    code = "import quotary.client.verify as v, enclave.boot as b; print(v.__file__); print(b.__file__)"
    command = [sys.executable, "-c", code]
    said = subprocess.run(
        command, cwd=copy, env=_environment(copy), capture_output=True, text=True, check=True
    ).stdout
    if any(not Path(line).is_relative_to(copy) for line in said.split()):
        raise SystemExit(f"the tests would not see the copy: {said}")


def _killer(copy: Path, tests: Sequence[str]) -> str | None:
    command = [sys.executable, "-m", "pytest", *tests, "-x", "-q", "-k", WITHOUT, "--no-header", "--tb=no"]
    command += ["-p", "no:cacheprovider", "--assert=plain", "--rootdir", str(copy)]
    try:
        done = subprocess.run(
            command, cwd=copy, env=_environment(copy), capture_output=True, text=True, timeout=LONGEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return "a loop without end"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (.+)$", done.stdout, re.MULTILINE)
    return found[1][:200] if found else f"exit {done.returncode}: {done.stdout[-200:]}{done.stderr[-200:]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
