"""Reading files for a manifest: which ones a Python process may import, and the SHA-256 of each.

Every file is hashed from its content at every start (about 900 MB with torch, 2 to 4 seconds on two cores);
the hashes that a wheel's RECORD claims are not used, and nothing is remembered between starts. Folders are
walked rather than taken from RECORD, because a file that no RECORD lists can be imported too. Byte code in
``__pycache__`` is left out: the measured process is started so that it never reads any.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from quotary.attestation.measure.process import MeasuredFile
from quotary.errors import CannotTell, Malformed

# What the enclave declares in pyproject.toml: the base requirements and the extra "enclave". A test compares.
ENCLAVE_REQUIREMENTS = (
    "click",
    "cryptography",
    "flask",
    "gunicorn",
    "pyhpke",
    "safetensors",
    "torch",
    "transformers",
    "urllib3",
)

_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages"})
# Written by the installer about the installation, different for each; never imported.
_INSTALLER_FILES = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"})

Named = tuple[str, Path]  # the path in the manifest, and where the file lies


def interpreter_executable() -> Path:
    """Find the interpreter behind a virtual environment: started without ``site``, it sees no environment."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def interpreter_files() -> list[Named]:
    """Name the executable, its shared library if it has one, and the standard library."""
    executable = interpreter_executable()
    found = [(f"bin/{executable.name}", executable)]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        library = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("INSTSONAME")))
        found.append((f"lib/{library.name}", library))
    standard = Path(sysconfig.get_path("stdlib"))
    return found + list(walk(standard, f"lib/{standard.name}"))


def closure(requirements: Iterable[str]) -> list[metadata.Distribution]:
    """Find the installed distributions that the requirements lead to, sorted by name."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = _distribution(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                wanted += _applicable(found[name], extra)
    return [found[name] for name in sorted(found)]


def top_levels(distributions: Iterable[metadata.Distribution]) -> dict[str, Path]:
    """Give what each distribution puts at the top of the import path: name to folder or file."""
    found: dict[str, Path] = {}
    for distribution in distributions:
        if distribution.files is None:
            raise CannotTell(f"{distribution.name} does not list its files")
        for first in {file.parts[0] for file in distribution.files}:
            if first not in ("..", "__pycache__") and not first.endswith(".pth"):
                path = Path(str(distribution.locate_file(first)))
                if found.setdefault(first, path) != path:
                    raise CannotTell(f"{first} is installed twice: {found[first]} and {path}")
    return found


def walk(path: Path, name: str) -> Iterator[Named]:
    """Name every file under a path; a linked folder is refused, since it could lead anywhere."""
    if path.is_file():
        yield name, path
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            inner = f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_FOLDERS:
                    yield from walk(Path(entry.path), inner)
            elif entry.is_dir():
                raise Malformed(f"{entry.path} is a link to a folder")
            elif not (name.endswith(".dist-info") and entry.name in _INSTALLER_FILES):
                yield inner, Path(entry.path)


def measured(files: Sequence[Named]) -> tuple[MeasuredFile, ...]:
    """Hash files, several at a time; order and number are kept."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return tuple(pool.map(_measure, files, chunksize=64))


def measured_bytes(name: str, data: bytes, *, executable: bool) -> MeasuredFile:
    """Describe content that is already in memory. Only the executable bit counts, as in git."""
    return MeasuredFile(name, 0o755 if executable else 0o644, hashlib.sha256(data).digest())


def is_executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _measure(named: Named) -> MeasuredFile:
    name, path = named
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            executable = bool(os.fstat(file.fileno()).st_mode & 0o100)
    except OSError as error:
        raise CannotTell(f"cannot measure {path}: {error.strerror}") from error
    return MeasuredFile(name, 0o755 if executable else 0o644, digest)


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise CannotTell(
            f"the enclave needs {name}, which is not installed", next_command="pip install 'quotary[enclave]'"
        ) from error


def _applicable(distribution: metadata.Distribution, extra: str) -> list[Requirement]:
    requirements = [Requirement(text) for text in distribution.requires or ()]
    return [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": extra})]
