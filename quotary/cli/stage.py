"""The demo's stage: runs our own commands as a reader would, shows them, and cleans up after itself."""

import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import click

from quotary.errors import QuotaryError, Usage
from quotary.net.listen import take_address

INDENT = "    "
# Five seconds on a quiet machine: Python, torch, and the hashing of a gigabyte of dependencies.
START_SECONDS = 180.0
COMMAND_SECONDS = 1500.0


class OutOfPlan(QuotaryError):
    """A command of the demo did not end as the story says."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Repeat:
    """A verdict's command for a second shell: words after ``quotary``, the exit code that it must give."""

    title: str
    words: tuple[str, ...]
    exit_code: int
    offline: bool


@dataclass(slots=True)
class Stage:
    """One run of the demo in a folder of its own; use it as a context: leaving stops what it started.

    folder: everything the run makes; emptied at the start
    """

    folder: Path
    repeats: list[Repeat] = field(default_factory=list)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    _lock: IO[str] | None = None

    def __enter__(self) -> "Stage":
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder.with_suffix(".lock"), "w")
        try:
            _lock_now(self._lock)
        except OSError as error:
            raise Usage(
                f"another demo runs in {self.folder}", next_command="quotary demo --folder OTHER"
            ) from error
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self.running)):
            self.stop(name)
        if self._lock:
            self._lock.close()

    def chapter(self, title: str) -> None:
        seconds = time.monotonic() - self.started_at
        click.echo(f"\n{click.style(title, bold=True)}  [{seconds:.0f} s]")

    def say(self, text: str) -> None:
        click.echo(f"  {text}")

    def run(self, *words: str | Path, expect: int = 0, show: bool = True, quiet: bool = False) -> str:
        """Run ``quotary WORDS``, show what it says, and demand an exit code; returns its stdout.

        show:  print the command; quiet: print nothing that a success says
        """
        text = [str(word) for word in words]
        if show:
            click.echo(f"  $ quotary {shlex.join(text)}")
        result = subprocess.run(
            _command(text), capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS
        )
        if not quiet or result.returncode != expect:
            _indented(result.stdout)
            _indented(result.stderr)
        if result.returncode != expect:
            raise OutOfPlan(
                f"quotary {shlex.join(text)} ended with {result.returncode}, the plan says {expect}"
            )
        if expect:
            self.say(f"exit code {expect}, as it must be.")
        return result.stdout

    def ask(self, *words: str | Path) -> Mapping[str, object]:
        """Run a command for its JSON, without showing it."""
        found = json.loads(self.run(*words, "--json", show=False, quiet=True))
        if not isinstance(found, dict):
            raise OutOfPlan(f"quotary {words[0]} gave no JSON object")
        return found

    def repeat(self, title: str, *words: str | Path, exit_code: int = 0, offline: bool = True) -> None:
        """Print the command that repeats a verdict in a second shell, and remember it for the test."""
        text = tuple(str(word) for word in words)
        self.repeats.append(Repeat(title, text, exit_code, offline))
        where = "works with the registry stopped" if offline else "while the demo runs"
        click.echo(f"  repeat it ({where}):\n{INDENT}{_quotary()} {shlex.join(text)}")

    def start(self, name: str, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start ``quotary WORDS`` in the background; its output goes to ``NAME.log``."""
        text = [str(word) for word in words]
        click.echo(f"  $ quotary {shlex.join(text)} &")
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                _command(text), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self.running[name] = process
        return process

    def wait_for(
        self, name: str, ready: Callable[[], bool], what: str, seconds: float = START_SECONDS
    ) -> None:
        """Wait until a background process is ready; at its end or the deadline, show its log and stop."""
        deadline = time.monotonic() + seconds
        while not ready():
            ended = self.running[name].poll()
            if ended is not None or time.monotonic() > deadline:
                self.show_log(name)
                how = f"ended with {ended}" if ended is not None else f"was not {what} within {seconds:.0f} s"
                raise OutOfPlan(f"{name} {how}")
            select.select([], [], [], 0.1)

    def show_log(self, name: str, lines: int = 60) -> None:
        text = (self.folder / f"{name}.log").read_text("utf-8", "replace")
        shown = [line for line in text.splitlines() if not line.startswith("{")]
        _indented("\n".join(shown[-lines:]))

    def stop(self, name: str) -> None:
        process = self.running.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_until_interrupted(self) -> None:
        """Serve on until Ctrl-C or SIGTERM, or until something that should run ends."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while all(process.poll() is None for process in self.running.values()):
                select.select([], [], [], 1)
        except KeyboardInterrupt:
            click.echo("\nstopping", err=True)

    def save_repeats(self) -> None:
        """Write the repeat commands to ``repeat.json``, for a second shell and for the test."""
        found = [
            {"title": r.title, "words": list(r.words), "exit_code": r.exit_code, "offline": r.offline}
            for r in self.repeats
        ]
        (self.folder / "repeat.json").write_text(json.dumps(found, indent=1) + "\n")


def free_ports(first: int, count: int) -> list[int]:
    """Check that ``count`` ports from ``first`` on are free on loopback; 0 takes what the kernel gives."""
    found = []
    for number in range(count):
        wanted = first + number if first else 0
        with take_address(f"127.0.0.1:{wanted}", "--port, or 0 for any") as probe:
            found.append(int(probe.getsockname()[1]))
    return found


def answers(port: int) -> bool:
    """Say whether something listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _command(words: Sequence[str]) -> list[str]:
    # -P: a file of the reader's folder must not be imported in place of a library.
    return [sys.executable, "-P", "-m", "quotary", *words]


def _quotary() -> str:
    """How a second shell calls this installation's command."""
    beside = Path(sys.executable).with_name("quotary")
    return os.path.relpath(beside) if beside.exists() else "quotary"


def _indented(text: str) -> None:
    for line in text.rstrip().splitlines():
        click.echo(INDENT + (line if len(line) <= 300 else line[:297] + "..."))


def _lock_now(file: IO[str]) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
