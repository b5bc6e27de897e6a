"""Registers of a process, profile ``process/v1``: what the simulator's process mode measures before it starts
one.

There is no hardware behind these values; the simulator says so itself (design section 6). The formula is
public so that anybody computes the same registers from the same files: ``docs/formats/measure-process.md``.

    manifest(files) = for each file, sorted by path: mode (6 octal digits) SP sha256 (64 hex) SP path LF
    mrtd  = SHA-384("quotary-process-code/v1\\n"    || manifest(code))
    rtmr1 = SHA-384("quotary-process-runtime/v1\\n" || manifest(interpreter) || LF || manifest(dependencies))
    rtmr2 = SHA-384("quotary-process-command/v1\\n" || JCS{argv, environment, policy, weights})
    rtmr0 = rtmr3 = 48 zero bytes
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quotary.attestation.measure.trace import ZERO, Measured, Step
from quotary.canonical import canonical
from quotary.errors import Malformed

MAX_FILES = 100_000

_PATH = re.compile(r"[^\x00-\x20\x7f-\x9f\ud800-\udfff]+(?: [^\x00-\x20\x7f-\x9f\ud800-\udfff]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """One file of a manifest.

    path:   relative, ``/`` between its parts, no part empty, ``.`` or ``..``
    mode:   permission bits, 0 to 0o777
    sha256: 32 bytes, of the file's content
    """

    path: str
    mode: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class ProcessImage:
    """Everything that decides what a process does, measured before it runs.

    code:         our own files
    interpreter:  the interpreter's files (its executable; its standard library where it is not locked
                  elsewhere)
    dependencies: files of the locked dependencies
    argv:         the command line, first word included
    environment:  the variables that survive cleaning, all of them
    policy:       32 bytes, SHA-256 of the policy file
    weights:      32 bytes, SHA-256 of the weights manifest
    """

    code: tuple[MeasuredFile, ...]
    interpreter: tuple[MeasuredFile, ...]
    dependencies: tuple[MeasuredFile, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    policy: bytes
    weights: bytes


def measure(image: ProcessImage) -> Measured:
    """Compute the five registers of a process; raises ``Malformed`` for what has no canonical form."""
    code = manifest(image.code)
    interpreter, dependencies = manifest(image.interpreter), manifest(image.dependencies)
    command = _command(image)
    registers = {
        "mrtd": hashlib.sha384(b"quotary-process-code/v1\n" + code).digest(),
        "rtmr0": ZERO,
        "rtmr1": hashlib.sha384(
            b"quotary-process-runtime/v1\n" + interpreter + b"\n" + dependencies
        ).digest(),
        "rtmr2": hashlib.sha384(b"quotary-process-command/v1\n" + command).digest(),
        "rtmr3": ZERO,
    }
    parts = (
        ("mrtd", "code", image.code, code),
        ("rtmr1", "interpreter", image.interpreter, interpreter),
        ("rtmr1", "dependencies", image.dependencies, dependencies),
    )
    steps = [step for part in parts for step in _file_steps(*part, registers[part[0]])]
    steps += _command_steps(image, registers["rtmr2"])
    return Measured(registers, tuple(steps))


def manifest(files: Iterable[MeasuredFile]) -> bytes:
    """Write the canonical lines of a set of files; refuses a path twice, or one that is not plain."""
    lines: dict[bytes, bytes] = {}
    for file in files:
        if _PATH.fullmatch(file.path) is None or {"", ".", ".."} & set(file.path.split("/")):
            raise Malformed(f"not a plain relative path: {file.path!r}")
        if not 0 <= file.mode <= 0o777 or len(file.sha256) != 32:
            raise Malformed(f"{file.path} needs a mode up to 777 and a SHA-256 of 32 bytes")
        path = file.path.encode()
        if path in lines:
            raise Malformed(f"{file.path} is listed twice")
        lines[path] = f"{file.mode:06o} {file.sha256.hex()} ".encode() + path + b"\n"
    if len(lines) > MAX_FILES:
        raise Malformed(f"{len(lines)} files, at most {MAX_FILES} are allowed")
    return b"".join(lines[path] for path in sorted(lines))


def _command(image: ProcessImage) -> bytes:
    if not image.argv or len(image.policy) != 32 or len(image.weights) != 32:
        raise Malformed("a process needs a command line and two SHA-256 of 32 bytes")
    for name in image.environment:
        if _VARIABLE.fullmatch(name) is None:
            raise Malformed(f"not a variable name: {name!r}")
    return canonical(
        {
            "argv": list(image.argv),
            "environment": [f"{name}={image.environment[name]}" for name in sorted(image.environment)],
            "policy": image.policy.hex(),
            "weights": image.weights.hex(),
        }
    )


def _file_steps(
    register: str, part: str, files: tuple[MeasuredFile, ...], lines: bytes, after: bytes
) -> Iterable[Step]:
    for file in sorted(files, key=lambda file: file.path.encode()):
        line = manifest((file,))
        yield Step(register, f"{part} {file.path}", hashlib.sha384(line).digest(), after)
    yield Step(register, f"{part} manifest", hashlib.sha384(lines).digest(), after)


def _command_steps(image: ProcessImage, after: bytes) -> Iterable[Step]:
    values: list[tuple[str, bytes]] = [
        (f"argv {index}", word.encode()) for index, word in enumerate(image.argv)
    ]
    values += [
        (f"environment {name}", image.environment[name].encode()) for name in sorted(image.environment)
    ]
    values += [("policy", image.policy), ("weights", image.weights)]
    for name, value in values:
        yield Step("rtmr2", name, hashlib.sha384(value).digest(), after)
