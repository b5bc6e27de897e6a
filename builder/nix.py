"""Drive the machine's Nix by subprocess: one class, its own configuration, its own store.

Only the old commands are used (``nix-build``, ``nix-store``, ``nix-instantiate``), since their words and
output have not changed between the Nix of Debian 12 (2.8) and of today. The machine's own settings, its
store and its substituters are never looked at: a build gets nothing but what ``quotary build prefetch`` put
into the store.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from builder.errors import (
    BuildFailed,
    DiskFull,
    InputDiffers,
    InputMissing,
    Interrupted,
    NixMissing,
    NotReproducible,
    SandboxMissing,
)
from quotary.errors import QuotaryError

CONFIGURATION = """\
build-users-group =
substituters =
sandbox = true
sandbox-fallback = false
experimental-features = nix-command flakes
"""
INSTALL = "apt-get install nix-bin"
LOG_LINES = 15
KEPT_LINES = 2000

_BUILDING = re.compile(r"building '/nix/store/[a-z0-9]{32}-(.+)\.drv'")
_FAILED = re.compile(
    r"builder for '/nix/store/[a-z0-9]{32}-(.+)\.drv' failed|while building derivation '(.+)'"
)
_MISSING = re.compile(r"/nix/store/[a-z0-9]{32}-([^'/]+)\.drv' failed")
_DIFFERS = re.compile(r"hash mismatch.*?specified: *(\S+).*?got: *(\S+)", re.DOTALL)
_NO_SANDBOX = re.compile(
    r"private mount namespace|unable to start build process|sandboxing builds|user namespaces|"
    r"cannot set up the sandbox|creating a new namespace|unshare"
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Nix:
    """A Nix installation together with the store that one builder uses.

    store:         folder that holds ``nix/store``; paths inside keep their logical name ``/nix/store/...``
    configuration: folder with the private ``nix.conf``
    """

    store: Path
    configuration: Path

    @classmethod
    def open(cls, store: Path) -> "Nix":
        """Find Nix, make the store's folder and its private configuration."""
        for program in ("nix-build", "nix-store", "nix-instantiate"):
            if shutil.which(program) is None:
                raise NixMissing(f"{program} is not installed", next_command=INSTALL)
        configuration = store.absolute() / "etc"
        with _room():
            configuration.mkdir(parents=True, exist_ok=True)
            (configuration / "nix.conf").write_text(CONFIGURATION)
        return cls(store.absolute(), configuration)

    def version(self) -> str:
        """Return what ``nix-build --version`` says, e.g. ``2.8.0``."""
        return self._run(["nix-build", "--version"]).split()[-1]

    def physical(self, path: str) -> Path:
        """Return where a logical store path lies on this machine."""
        return self.store / path.removeprefix("/")

    def absent(self, paths: Sequence[str]) -> frozenset[str]:
        """Return those of ``paths`` that the store does not hold as valid."""
        if not paths:
            return frozenset()
        words = ["nix-store", "--store", str(self.store), "--check-validity", "--print-invalid", *paths]
        return frozenset(self._run(words).split())

    def add(self, path: Path, *, tree: bool = False) -> str:
        """Add a file or a tree under its own name by content (SHA-256); return its logical path."""
        kind = ["--recursive"] if tree else []
        words = ["nix-store", "--store", str(self.store), "--add-fixed", *kind, "sha256", str(path)]
        return self._run(words).strip()

    def add_files(self, paths: Sequence[Path]) -> list[str]:
        """Add files by content, in one call; return their logical paths in the same order."""
        if not paths:
            return []
        words = ["nix-store", "--store", str(self.store), "--add-fixed", "sha256", *map(str, paths)]
        return self._run(words).split()

    def build(
        self,
        expression: Path,
        attributes: Sequence[str],
        arguments: Sequence[tuple[str, str]] = (),
        *,
        visible: Iterable[Path] = (),
        progress: Progress | None = None,
        check: bool = False,
        jobs: int = 1,
        cores: int = 0,
    ) -> list[str]:
        """Build attributes of an expression; return their logical output paths in the order asked for.

        arguments: names and string values for the expression's function
        visible:   what the expression may read of this machine, besides its own folder; it may ask no network
        check:     build again what is already built, and raise ``NotReproducible`` on any difference
        """
        words = ["nix-build", "--store", str(self.store), "--no-out-link", str(expression)]
        words += [word for attribute in attributes for word in ("-A", attribute)]
        words += [word for name, value in arguments for word in ("--argstr", name, value)]
        places = [expression, *visible]
        words += [word for at, path in enumerate(places) for word in ("-I", f"p{at}={path.resolve()}")]
        words += ["--option", "restrict-eval", "true"]
        words += ["--check"] if check else []
        words += ["--option", "max-jobs", str(jobs), "--option", "cores", str(cores)]
        return self._run(words, progress).split()

    def nar_hash(self, path: str) -> str:
        """Return the SHA-256 of a store path's archive, as ``sha256:<base 32>``."""
        return self._run(["nix-store", "--store", str(self.store), "-q", "--hash", path]).strip()

    def derivation(self, path: str) -> str:
        """Return the logical path of the derivation that made ``path`` (provenance, never compared)."""
        return self._run(["nix-store", "--store", str(self.store), "-q", "--deriver", path]).strip()

    def verify(self) -> None:
        """Read the whole store and raise ``BuildFailed`` where a path is not what it was when added."""
        self._run(["nix-store", "--store", str(self.store), "--verify", "--check-contents"])

    def remove(self) -> None:
        """Remove the store and all that was built in it; its folders are read-only until then."""
        for base, _, _ in os.walk(self.store):
            os.chmod(base, 0o700)
        shutil.rmtree(self.store)

    def _run(self, words: list[str], progress: Progress | None = None) -> str:
        try:
            process = subprocess.Popen(
                words,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise NixMissing(f"{words[0]} is not installed", next_command=INSTALL) from error
        with _stopped_with_us(process):
            lines = list(_last(_read(process.stderr or (), progress)))
            output = process.stdout.read() if process.stdout else ""
            code = process.wait()
        if code != 0:
            raise failure("\n".join(lines), code)
        return output

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return kept | {
            "NIX_CONF_DIR": str(self.configuration),
            "NIX_USER_CONF_FILES": "",
            "NIX_PATH": "",
            "LC_ALL": "C.UTF-8",
        }


def failure(log: str, code: int) -> QuotaryError:
    """Turn what Nix printed into the error it means."""
    if "INPUT-NOT-IN-STORE" in log:
        return InputMissing(sorted(set(_MISSING.findall(log))), next_command="quotary build prefetch")
    if "No space left on device" in log or "database or disk is full" in log:
        return DiskFull("no space left for the Nix store", next_command="df -h")
    if "may not be deterministic" in log:
        return NotReproducible("rebuild", _named(log, r"derivation '([^']+)'"), "the same bytes as before")
    if found := _DIFFERS.search(log):
        return InputDiffers("input hash", found[2], found[1])
    if code < 0 or "interrupted by the user" in log:
        return Interrupted("the build was stopped", next_command="quotary build run")
    if _NO_SANDBOX.search(log):
        return SandboxMissing(
            f"this machine does not let Nix isolate a build: {_last_line(log)}",
            next_command="sysctl kernel.unprivileged_userns_clone=1",
        )
    name = next((one or two for one, two in _FAILED.findall(log)), "the expression")
    tail = " | ".join(line.strip() for line in log.splitlines()[-LOG_LINES:] if line.strip())
    return BuildFailed(f"{name} did not build (exit {code}): {tail}")


def _read(stream: Iterable[str], progress: Progress | None) -> Iterator[str]:
    for line in stream:
        if progress is not None and (found := _BUILDING.search(line)):
            progress(f"building {found[1]}")
        yield line.rstrip("\n")


def _last(lines: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for line in lines:
        kept.append(line)
        if len(kept) > 2 * KEPT_LINES:
            del kept[:KEPT_LINES]
    return kept


def _last_line(log: str) -> str:
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "no message")


def _named(log: str, pattern: str) -> str:
    found = re.search(pattern, log)
    return f"other bytes from {found[1]}" if found else "other bytes"


@contextmanager
def _stopped_with_us(process: "subprocess.Popen[str]") -> Iterator[None]:
    """End the whole process group when we are told to end, so that no build goes on alone."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _interrupt) if main else None
    try:
        yield
    except KeyboardInterrupt as error:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise Interrupted("the build was stopped", next_command="quotary build run") from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskFull(f"cannot prepare the store: {error.strerror}", next_command="df -h") from error
