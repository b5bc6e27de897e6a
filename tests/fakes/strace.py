"""Real processes whose file-system calls are recorded, killed or failed one by one, by strace.

A process is forked from a server that has imported everything, waits until strace holds it, and then works. Its
counts begin there, so that the n-th call of a kind on a file is the same one in every run.
"""

import multiprocessing
import re
import select
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from quotary.errors import QuotaryError
from tests.fakes.processes import SECONDS

CALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate")
RAISED = 3
UNTOUCHED = ("-o", "/dev/null", "-e", "trace=none")

Work = Callable[[Path, Connection], None]


@dataclass(frozen=True, slots=True)
class Point:
    """The ``number``-th call of one kind that a thread makes on a file; ``path`` is relative to the folder."""

    call: str
    path: str
    number: int

    def inject(self, folder: Path, fault: str) -> list[str]:
        path = str(folder / self.path) if self.path else str(folder)
        return ["-o", "/dev/null", "-P", path, "-e", f"inject={self.call}:{fault}:when={self.number}"]


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a process.

    code: its exit code; negative where a signal ended it, ``RAISED`` where an error did that ``told`` names
    told: what it said on its way
    """

    code: int
    told: tuple[tuple[str, object], ...]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(slots=True)
class Forked:
    """A process at work, and what it told so far."""

    process: BaseProcess
    connection: Connection
    told: list[tuple[str, object]] = field(default_factory=list)

    def hear(self, seconds: float = SECONDS) -> bool:
        """Wait for the next thing that it tells; False where nothing comes any more, or in time."""
        with suppress(EOFError, ConnectionResetError):
            if self.connection.poll(seconds):
                self.told.append(self.connection.recv())
                return True
        return False

    def listen(self) -> Run:
        """Hear it out, to its end."""
        while self.hear():
            pass
        self.process.join(SECONDS)
        assert self.process.exitcode is not None, "the process does not end"
        return Run(self.process.exitcode, tuple(self.told))


@contextmanager
def forked(work: Work, folder: Path, strace: Sequence[str]) -> Iterator[Forked]:
    """Let a process do ``work`` in ``folder`` under strace; whatever is left of it at the end is killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["registry.sequence", "registry.recover", "registry.signer"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(work, folder, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.poll(SECONDS)
        assert ours.recv() == "ready"
        assert process.pid is not None
        with _attached(process.pid, strace):
            ours.send("go")
            yield Forked(process, ours)
            process.kill()
    finally:
        process.kill()
        process.join(SECONDS)
        ours.close()


def run(work: Work, folder: Path, strace: Sequence[str]) -> Run:
    """Let a process do ``work`` to its end, or to the fault that strace makes."""
    with forked(work, folder, strace) as process:
        return process.listen()


def record(out: Path) -> list[str]:
    """Options of strace that write down every call of ``CALLS``."""
    return ["-y", "-o", str(out), "-e", "trace=" + ",".join(CALLS)]


def points(folder: Path, trace: Path) -> list[Point]:
    """Every call that a recorded process made on a file of ``folder``, in order."""
    counts: Counter[tuple[str, str, str]] = Counter()
    found: dict[Point, None] = {}
    named = re.compile(re.escape(str(folder)) + r'(?:/([^">]*))?[">]')
    for line in trace.read_text("utf-8", "replace").splitlines():
        call = re.match(r"(\d+) +(\w+)\(", line)
        path = named.search(line)
        if call and path:
            thread, name = call.groups()
            counts[thread, name, path[1] or ""] += 1
            found[Point(name, path[1] or "", counts[thread, name, path[1] or ""])] = None
    return list(found)


def _work(work: Work, folder: Path, told: Connection) -> None:
    told.send("ready")
    told.recv()
    try:
        work(folder, told)
    except (QuotaryError, OSError) as error:
        told.send(("raised", type(error).__name__))
        raise SystemExit(RAISED) from None


@contextmanager
def _attached(pid: int, options: Sequence[str]) -> Iterator[None]:
    words = ["strace", "-f", "-p", str(pid), "-e", "signal=none", *options]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        ready, _, _ = select.select([strace.stderr], [], [], SECONDS)
        said = strace.stderr.readline() if ready else b"nothing"
        assert b"attached" in said, said
        try:
            yield
        finally:
            with suppress(subprocess.TimeoutExpired):
                strace.communicate(timeout=SECONDS)
            strace.kill()
