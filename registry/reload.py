"""Run new code without a gap (``quotary registry reload``, SIGHUP to ``serve``).

Signer and sequencer hand over one after the other: the signer's socket belongs to the supervisor, so requests
wait in it while no signer listens, and the sequencer ends its round before the next one takes over. Then
gunicorn replaces its workers. Code that cannot be loaded changes nothing.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quotary.errors import CannotTell
from registry.child import Child
from registry.keys import write_durably
from registry.lock import is_held

log = logging.getLogger("registry")

SECONDS = 90.0
DONE, REFUSED = "done", "refused"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a running ``serve`` says of itself in ``serve.state``.

    count: reloads asked for so far; outcome: of the newest
    """

    pid: int
    count: int = 0
    outcome: str = DONE

    @classmethod
    def read(cls, path: Path) -> "Standing":
        try:
            pid, count, outcome = path.read_text("ascii").split()
            return cls(int(pid), int(count), outcome)
        except (OSError, ValueError) as error:
            raise CannotTell(f"{path} does not say which process runs the registry") from error

    def write(self, path: Path) -> None:
        write_durably(path, f"{self.pid} {self.count} {self.outcome}\n".encode("ascii"))


def replace_all(children: Sequence[Child], path: Path) -> None:
    """Replace every child in the order in which they were started, and say in ``path`` how it went."""
    before = Standing.read(path)
    if not all(child.loads() for child in children):
        log.error("reload.refused", extra={"why": "the new code cannot be loaded; its message stands above"})
        Standing(before.pid, before.count + 1, REFUSED).write(path)
        return
    for child in children:
        child.replace()
    log.info("registry.reloaded", extra={"children": [child.name for child in children]})
    Standing(before.pid, before.count + 1).write(path)


def ask(folder: Path) -> None:
    """Have the registry over ``folder`` run the code on disk, and return when it does.

    Raises ``CannotTell`` where none runs, where the new code cannot be loaded, and where it takes too long.
    """
    lock, state = folder / "serve.lock", folder / "serve.state"
    if not is_held(lock):
        raise CannotTell(f"no registry runs over {folder}", next_command="quotary registry serve")
    before = Standing.read(state)
    os.kill(before.pid, signal.SIGHUP)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and is_held(lock):
        found = Standing.read(state)
        if found.count > before.count:
            if found.outcome == REFUSED:
                raise CannotTell("the new code cannot be loaded, the old goes on; its log says why")
            return
        select.select([], [], [], 0.05)
    raise CannotTell(f"the registry over {folder} did not say that it was reloaded", next_command="its log")
