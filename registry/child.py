"""One process that the supervisor keeps: started again when it crashes, replaced without a gap on reload."""

import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quotary.errors import CannotTell
from registry.apart import keep_apart

log = logging.getLogger("registry")

STOP_SECONDS = 15.0
ROLL_SECONDS = 30.0
RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """One supervised process.

    application: what gunicorn loads; such a child replaces its own workers, others are started anew
    apart:       it can look into no process but its own children
    """

    name: str
    command: list[str]
    fds: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    application: str = ""
    apart: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.started.append(time.monotonic())
        self.process = subprocess.Popen(
            self.command,
            pass_fds=self.fds,
            start_new_session=True,
            preexec_fn=_before_it_runs(self.apart),
            env={**os.environ, **self.environment},
        )
        log.info("child.started", extra={"child": self.name, "pid": self.process.pid})

    def may_restart(self, code: int) -> bool:
        recent = [at for at in self.started if time.monotonic() - at < RESTART_WINDOW_SECONDS]
        # 40: a database or a leadership that was lost may come back.
        return (code <= 1 or code == CannotTell.exit_code) and len(recent) <= RESTARTS

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("child.killed", extra={"child": self.name})
            self.process.kill()
            self.process.wait()

    def loads(self) -> bool:
        """Say whether the code that now lies on disk can be loaded by the workers to come."""
        if not self.application:
            return True
        words = [sys.executable, "-m", "gunicorn", "--check-config", self.application]
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, check=False, timeout=ROLL_SECONDS, env=environment).returncode == 0

    def replace(self) -> None:
        """Run the code that now lies on disk; requests wait, or go to the workers before."""
        if self.application and self.process is not None:
            before = _children_of(self.process.pid)
            self.process.send_signal(signal.SIGHUP)
            self._await_others(before)
            return
        self.stop()
        self.start()
        self.started.clear()

    def _await_others(self, before: set[str]) -> None:
        deadline = time.monotonic() + ROLL_SECONDS
        while self.process is not None and self.process.poll() is None and time.monotonic() < deadline:
            now = _children_of(self.process.pid)
            if now and not now & before:
                return
            select.select([], [], [], 0.05)


def _children_of(pid: int) -> set[str]:
    try:
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
    except OSError:
        return set()


def _before_it_runs(apart: bool) -> Callable[[], None]:
    """Have the kernel stop a child whose supervisor was killed outright, and keep it apart if wanted."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        if apart:
            keep_apart()

    return prepare
