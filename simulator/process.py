"""Process mode: measure everything that decides what a process does, then start it and quote for it alone.

Profile ``process/v1`` (``quotary.attestation.measure.process`` has the formula). Our code and the policy are
read once; the bytes that were hashed are the bytes that the child gets, copied into a folder of its own. The
child sees that copy and links to the measured dependencies as its whole import path: no ``site``, no
``.pth``, no byte code, no variable of ours. Then it is started, and only it is quoted for.

This is software under the same user. It proves nothing against the owner of this machine, who can read the
vendor's keys, change a dependency between its hashing and its import, or attach a debugger to the child.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quotary.attestation.measure.process import ProcessImage, measure
from quotary.errors import CannotTell, Malformed, Usage
from quotary.manifest import NAME, Manifest
from simulator.files import (
    Named,
    closure,
    interpreter_executable,
    interpreter_files,
    is_executable,
    measured,
    measured_bytes,
    top_levels,
    walk,
)
from simulator.tdx import Registers

# The child's device: a descriptor number that is the same on every machine, since the command line is
# measured.
TEE_FD = 100
TEE = f"fd:{TEE_FD}"

# Names under the child's working folder. They are measured in place of the local paths behind them.
CODE, LIBRARY, POLICY, MODEL = "code", "lib", "policy.json", "model"
# argv[0] is measured as this word: which interpreter it is, its own content says (rtmr1).
INTERPRETER = "python"
# -B, pycache_prefix: byte code is neither written nor read; -P -s -S: no path but PYTHONPATH, no start-up
# hooks.
FLAGS = ("-B", "-P", "-S", "-s", "-X", "pycache_prefix=/nonexistent")

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": f"{CODE}:{LIBRARY}",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
    "TZ": "UTC",
}
# What a caller may add, and nothing else: settings that change speed.
ALLOWED_VARIABLES = frozenset({"MKL_NUM_THREADS", "OMP_NUM_THREADS"})

MAX_POLICY = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, in the words of whoever starts it.

    code:         our packages by name, and the folder of each
    requirements: what the packages need; the installed closure of these is all that the child can import
    arguments:    the words after the interpreter's flags, e.g. ``("-m", "quotary", "enclave", "serve", …)``
    environment:  variables beside the fixed ones, names out of ``ALLOWED_VARIABLES``
    policy:       file; the child finds it as ``policy.json`` in its working folder
    model:        folder of the weights with its ``MANIFEST``; the child finds it as ``model``
    """

    code: Mapping[str, Path]
    requirements: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    policy: Path
    model: Path


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A measured program: what was hashed, and what the child gets.

    code:      each file of our packages: path, content, executable or not
    libraries: what the child's import path links to
    """

    image: ProcessImage
    code: tuple[tuple[str, bytes, bool], ...]
    policy: bytes
    libraries: Mapping[str, Path]
    model: Path

    @property
    def registers(self) -> Registers:
        found = measure(self.image).registers
        return Registers(**{name: found[name] for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")})


def snapshot(program: Program) -> Snapshot:
    """Measure a program without starting anything."""
    unknown = sorted(set(program.environment) - ALLOWED_VARIABLES)
    if unknown:
        raise Usage(f"variable {unknown[0]} may not be passed, only {', '.join(sorted(ALLOWED_VARIABLES))}")
    code = tuple(_read(item) for name in sorted(program.code) for item in walk(program.code[name], name))
    policy = _read((POLICY, program.policy))[1]
    if len(policy) > MAX_POLICY:
        raise Malformed(f"policy has {len(policy)} bytes, at most {MAX_POLICY} are allowed")
    libraries = top_levels(closure(program.requirements))
    clash = sorted(set(libraries) & set(program.code))
    if clash:
        raise CannotTell(f"{clash[0]} is both our code and a dependency")
    dependencies = [item for name in sorted(libraries) for item in walk(libraries[name], name)]
    image = ProcessImage(
        code=tuple(measured_bytes(name, data, executable=executable) for name, data, executable in code),
        interpreter=measured(interpreter_files()),
        dependencies=measured(dependencies),
        argv=(INTERPRETER, *FLAGS, *program.arguments),
        environment={**ENVIRONMENT, **program.environment},
        policy=hashlib.sha256(policy).digest(),
        weights=weights_digest(program.model),
    )
    return Snapshot(image, code, policy, libraries, program.model.resolve())


def weights_digest(model: Path) -> bytes:
    """Give the digest of the model's manifest; the enclave holds every file against it while it loads.

    As with a disk whose root hash stands on the command line: what is measured is what the program must
    find, and the program refuses what it finds instead.
    """
    if not model.is_dir():
        raise CannotTell(f"no model folder at {model}")
    return Manifest.parse(_read((NAME, model / NAME))[1]).digest


def stage(taken: Snapshot, parent: Path) -> Path:
    """Lay out the child's working folder from the bytes that were measured."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="enclave-"))
    for name, data, executable in taken.code:
        path = folder / CODE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o500 if executable else 0o400)
    (folder / POLICY).write_bytes(taken.policy)
    (folder / LIBRARY).mkdir()
    for name, path in taken.libraries.items():
        (folder / LIBRARY / name).symlink_to(path)
    (folder / MODEL).symlink_to(taken.model)
    return folder


def command(taken: Snapshot) -> list[str]:
    """Give the command line to execute: the measured words behind the real interpreter."""
    return [str(interpreter_executable()), *taken.image.argv[1:]]


def _read(named: Named) -> tuple[str, bytes, bool]:
    name, path = named
    try:
        return name, path.read_bytes(), is_executable(path)
    except OSError as error:
        raise CannotTell(f"cannot measure {path}: {error.strerror}") from error
