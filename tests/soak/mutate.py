"""Deletes one call or one refusal of a verification at a time; some test must notice each.

A mutant is a copy of the packages in which one statement of one function became ``pass``: a call (with what
it assigns), or an ``if`` that only raises. The working tree is never written to. A check that can be deleted
without a failing test is a check that the next change may lose.

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

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("quotary", "enclave", "registry", "builder", "simulator", "tests", "docs", "migrations")
# A guard against a loop without end; the longest of these files takes half a minute alone.
LONGEST_SECONDS = 600
# What the time budgets say on a busy machine is not about the mutant.
WITHOUT = "not milliseconds and not quickly"
ATTESTATION, CLIENT = "quotary/attestation/", "quotary/client/"


@dataclass(frozen=True, slots=True)
class Target:
    """Functions of one verification, by file, and the smallest tests that should notice a missing check."""

    functions: dict[str, tuple[str, ...]]
    tests: tuple[str, ...]


TARGETS = {
    "judge": Target({f"{CLIENT}verify.py": ("judge",)}, ("tests/client/test_verify.py",)),
    "bundle": Target(
        {
            f"{CLIENT}verify.py": (
                "verify_bundle",
                "verify_release",
                "verify_proof",
                "verify_absence",
                "_require_known",
            )
        },
        ("tests/client/test_verify.py",),
    ),
    "steps": Target(
        {
            f"{CLIENT}evidence.py": (
                "verify_evidence",
                "verify_binding",
                "require_row",
                "require_floor",
                "require_devices",
                "_replay",
                "_nonce_root",
                "_require_digest",
            ),
            f"{CLIENT}standing.py": (
                "check_checkpoint",
                "refuse_rollback",
                "bound_age",
                "check_state",
                "check_release",
                "check_records",
                "proven_records",
                "require_active",
                "refuse_revoked",
                "require_rebuilders",
                "included",
                "_audited",
            ),
            f"{CLIENT}authority.py": (
                "check_authority",
                "_genesis",
                "_delegation",
                "_builders",
                "_follows",
                "_require_owners",
                "_signers",
            ),
        },
        ("tests/client/test_verify.py", "tests/client/test_verify_replay.py"),
    ),
    "tdx": Target(
        {
            f"{ATTESTATION}tdx.py": ("verify", "verify_pck", "_require_machine", "_require_module", "_judge"),
            f"{ATTESTATION}dcap.py": ("verify_qe_report", "_require_identity"),
            f"{ATTESTATION}collateral.py": ("verify_collateral", "_verify_document"),
            f"{ATTESTATION}roots.py": ("select_root", "refuse_simulated"),
            f"{ATTESTATION}certificates.py": ("verify_chain", "require_within", "_require_issuer"),
        },
        ("tests/attestation/test_tdx_verify.py",),
    ),
    "snp": Target(
        {
            f"{ATTESTATION}snp.py": ("verify", "_require_product"),
            f"{ATTESTATION}amd.py": ("verify_endorsement",),
        },
        ("tests/attestation/test_snp.py",),
    ),
    "nitro": Target(
        {f"{ATTESTATION}nitro.py": ("verify", "meet_demands", "require_bound")},
        ("tests/attestation/test_nitro.py",),
    ),
    "nvidia": Target(
        {f"{ATTESTATION}nvidia.py": ("verify", "_firmware_id", "_architecture")},
        ("tests/attestation/test_nvidia.py",),
    ),
    "rim": Target(
        {f"{ATTESTATION}rim.py": ("verify", "match", "_require_meta", "_require_golden")},
        ("tests/attestation/test_rim.py",),
    ),
    "appraise": Target(
        {
            f"{ATTESTATION}appraise.py": (
                "meet_requirements",
                "meet_floor",
                "_require_platform",
                "_refuse_bits",
                "_bits",
                "_configuration",
                "_rtmr0",
                "_zero",
                "_require_component",
            ),
            f"{ATTESTATION}snp_appraisal.py": (
                "meet_requirements",
                "meet_demands",
                "meet_floor",
                "_guest_policy",
                "_listed",
                "_platform_info",
                "_mitigations",
            ),
        },
        ("tests/attestation/test_appraise.py", "tests/attestation/test_snp_appraisal.py"),
    ),
    "boot": Target({"enclave/boot.py": ("rehearse", "renew", "_check", "_judged")}, ("tests/enclave/test_boot_check.py",)),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One statement to delete: ``lines`` are its first and last line, counted from 1."""

    file: str
    function: str
    lines: tuple[int, int]
    column: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.lines[0]} {self.function}: {self.what}"

    def source(self, text: str) -> str:
        """Give the file's text without the statement; the lines keep their numbers."""
        first, last = self.lines
        lines = text.splitlines()
        gap = [f"{' ' * self.column}pass", *[""] * (last - first)]
        return "\n".join(lines[: first - 1] + gap + lines[last:]) + "\n"


@dataclass(frozen=True, slots=True)
class Fate:
    """What happened to a mutant: the test that noticed it, or None."""

    mutant: Mutant
    killer: str | None

    def __str__(self) -> str:
        return f"{self.mutant}  {f'killed by {self.killer}' if self.killer else 'SURVIVED'}"


def mutants(target: Target) -> Iterator[Mutant]:
    """Find every statement of a target that can be deleted; a function that is not there is a ``KeyError``."""
    for file, names in target.functions.items():
        tree = ast.parse((ROOT / file).read_text())
        found = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for name in names:
            for statement in _deletable(found[name].body):
                what = ast.unparse(statement).splitlines()[0][:90]
                end = statement.end_lineno or statement.lineno
                yield Mutant(file, name, (statement.lineno, end), statement.col_offset, what)


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
