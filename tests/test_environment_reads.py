"""Which environment variables our code reads: all of them stand here, with what they may decide.

None of them skips a check. A read that is not in the list fails the test, so that a new one is reviewed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("quotary", "enclave", "registry", "builder", "simulator", "verifier", "nix")

REVIEWED = {
    ("registry/child.py", "*"): "handed on to the registry's own children",
    ("registry/metrics_app.py", "PROMETHEUS_MULTIPROC_DIR"): "where the workers' counters lie",
    ("quotary/cli/options.py", "QUOTARY_POLICY"): "which policy file, where --policy does not say it",
    ("quotary/cli/options.py", "QUOTARY_TRUST"): "where this user's accepted checkpoints lie",
    ("quotary/cli/files.py", "XDG_STATE_HOME"): "where a user's commands keep what they remember",
    (
        "quotary/cli/read.py",
        "QUOTARY_LOG",
    ): "which log is asked; what it answers is verified or called a hint",
    ("enclave/transformer.py", "CUBLAS_WORKSPACE_CONFIG"): "written, so that a GPU adds in one order",
    ("enclave/api.py", "gunicorn.socket"): "of a request, not of the process: the socket it came in on",
    ("enclave/serve.py", "*"): "refuses every variable that is not on the short list",
    ("builder/apt.py", "QUOTARY_DEBIAN_MIRROR"): "where packages are fetched; each is compared with the lock",
    ("builder/apt.py", "*"): "handed on to apt, whose packages are compared with the lock",
    ("builder/build.py", "XDG_CACHE_HOME"): "where the store lies",
    ("builder/build.py", "QUOTARY_STORE"): "where the store lies",
    ("builder/prefetch.py", "XDG_CACHE_HOME"): "where inputs are kept; each is hashed again",
    ("builder/nix.py", "HOME"): "handed on to Nix",
    ("builder/nix.py", "PATH"): "where Nix is found",
    ("builder/nix.py", "TMPDIR"): "handed on to Nix",
    ("builder/locked.py", "LIBRARIES"): "set by the Nix expression inside the sandbox",
    ("builder/locked.py", "TOOLS"): "set by the Nix expression inside the sandbox",
    ("builder/uki.py", "*"): "handed on inside Nix's sandbox, which made it",
    ("nix/guest/init.py", "*"): "the first process's own: printed by name, and refused if it is not the list",
    ("builder/source.py", "*"): "handed on to git, without GIT_*; the commit is a hash over the source",
}

READERS = {"get", "getenv", "getenvb", "setdefault", "pop"}


def reads(source: str) -> Iterator[str]:
    """Names of the variables that a module reads; ``*`` for the environment as a whole."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "envvar":
            yield from _names(node.value, constants)
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ("*" for name in node.names if name.name in ("environ", "environb", "getenv"))
        elif isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"):
            yield from _read(node, parents, constants)


def _read(
    node: ast.Attribute, parents: dict[ast.AST, ast.AST], constants: dict[str, object]
) -> Iterator[str]:
    above = parents[node]
    if isinstance(above, ast.Subscript):
        yield from _names(above.slice, constants, parents)
    elif isinstance(above, ast.Compare):
        yield from _names(above.left, constants, parents)
    elif isinstance(above, ast.Call) and above.func is node and above.args:
        yield from _names(above.args[0], constants, parents)
    elif isinstance(above, ast.Attribute) and above.attr in READERS:
        call = parents[above]
        assert isinstance(call, ast.Call)
        yield from _names(call.args[0], constants, parents)
    else:
        yield "*"


def _names(
    node: ast.AST, constants: dict[str, object], parents: dict[ast.AST, ast.AST] | None = None
) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.List | ast.Tuple):
        for item in node.elts:
            yield from _names(item, constants, parents)
    elif isinstance(node, ast.Name) and node.id in constants:
        yield str(constants[node.id])
    elif isinstance(node, ast.Name) and parents is not None:
        yield from _looped(node, parents)
    else:
        yield "*"


def _looped(node: ast.Name, parents: dict[ast.AST, ast.AST]) -> Iterator[str]:
    """The values of a comprehension's variable that runs over written names; anything else is all of it."""
    above: ast.AST | None = node
    while above is not None:
        for loop in getattr(above, "generators", ()):
            if isinstance(loop.target, ast.Name) and loop.target.id == node.id:
                yield from _names(loop.iter, {})
                return
        above = parents.get(above)
    yield "*"


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_every_variable_that_our_code_reads_was_reviewed() -> None:
    found = {
        (str(path.relative_to(ROOT)), name) for path in modules() for name in reads(path.read_text("utf-8"))
    }
    assert sorted(found - set(REVIEWED)) == []
    gone = {(path, name) for path, name in set(REVIEWED) - found if (ROOT / path).exists()}
    assert sorted(gone) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os\nos.environ['A']", ["A"]),
        ("import os\nos.environ.get('A', 'x')", ["A"]),
        ("import os\nos.getenv('A')", ["A"]),
        ("import os\nN = 'A'\nos.environ.get(N)", ["A"]),
        ("import os\n'A' in os.environ", ["A"]),
        ("import os\n{n: os.environ[n] for n in ('A', 'B')}", ["A", "B"]),
        ("import os\ndict(os.environ)", ["*"]),
        ("import os\n{**os.environ}", ["*"]),
        ("import os\nos.environ.get(made())", ["*"]),
        ("import os\nfor n in names: os.environ[n]", ["*"]),
        ("from os import environ", ["*"]),
        ("from os import getenv as g", ["*"]),
        ("import os as o\no.environb[b'A']", ["b'A'"]),
        ("import click\nclick.option('--a', envvar='A')", ["A"]),
        ("import click\nclick.option('--a', envvar=['A', 'B'])", ["A", "B"]),
    ],
)
def test_no_way_of_reading_escapes_the_list(source: str, names: list[str]) -> None:
    assert list(reads(source)) == names


def test_no_command_takes_its_options_from_variables_by_itself() -> None:
    """click can read every option from ``PREFIX_OPTION``: nobody may ask for that."""
    for path in modules():
        assert "auto_envvar_prefix" not in path.read_text("utf-8"), path
