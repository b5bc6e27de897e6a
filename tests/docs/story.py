"""Runs the command blocks of a page as one story: in order, in one folder, against real processes.

A block fenced as ``sh`` is typed as it stands. A command that ends in `` &`` stays and is waited for until it
says its address; ``# ends with N`` behind a command is the exit code that the page promises. What only the
test does (``stop`` a server, make a file that a reader has already) stands in a comment ``<!-- story ... -->``.
A block behind a paragraph that begins with ``*Not run here:`` is left out; ``left_out`` gives its reason.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.conftest import ROOT
from tests.fakes.processes import until

SECONDS = 60.0
LEFT_OUT = "*Not run here:"
_BLOCK = re.compile(r"^```sh\n(?P<sh>.*?)^```$|^<!-- story\n(?P<hidden>.*?)^-->$", re.MULTILINE | re.DOTALL)
_ENDS = re.compile(r"^(?P<command>.*?) +# ends with (?P<code>\d+)$", re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Give each block of a page, and the reason why it is left out or an empty text."""
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        reason = before if found["sh"] and before.startswith(LEFT_OUT) else ""
        yield found["sh"] or found["hidden"], reason


def left_out(page: Path) -> list[str]:
    return [reason for _, reason in blocks(page) if reason]


@dataclass(slots=True)
class Stage:
    """A folder in which stories are run, and the servers that stay.

    swaps:   what a reader has elsewhere (an address, a folder), and what stands for it here
    seconds: a command may take
    """

    folder: Path
    swaps: dict[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for command in list(self._servers):
            self._stop(command)

    def play(self, page: Path, *, stays: bool = False) -> int:
        """Run a page; give the number of blocks that were run. Its servers end with it, unless it ``stays``."""
        before = set(self._servers)
        played = [text for text, reason in blocks(page) if not reason]
        for text in played:
            for part in _parts(self._swapped(text)):
                self._act(part, page.name)
        for command in self._servers.keys() - before if not stays else ():
            self._stop(command)
        return len(played)

    def play_apart(self, page: Path, word: str) -> None:
        """Run the one block that a page leaves out and that has this word."""
        (text,) = (text for text, reason in blocks(page) if reason and word in text)
        for part in _parts(self._swapped(text)):
            self._act(part, page.name)

    def _act(self, part: str, page: str) -> None:
        if part.startswith("stop "):
            self._stop(part.removeprefix("stop ").strip())
        elif part.endswith(" &"):
            self._start(part.removesuffix(" &"))
        else:
            self._run(part, page)

    def _run(self, text: str, page: str) -> None:
        script = _ENDS.sub(r"if \g<command>; then exit 99; else test $? -eq \g<code>; fi", text)
        words = [
            "sh",
            "-eux",
            "-c",
            f"set -a; [ ! -e .said ] || . ./.said; {{\n{script}\n}}; export -p > .said",
        ]
        ran = subprocess.run(
            words,
            cwd=self.folder,
            env=self._env(),
            capture_output=True,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        assert ran.returncode == 0, f"{page}: {ran.stderr[-3000:]}\n{ran.stdout[-1000:]}"

    def _start(self, command: str) -> None:
        out = self.folder / f".out-{len(self._servers)}"
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            self._servers[command] = process = subprocess.Popen(
                ["sh", "-c", f"[ ! -e .said ] || . ./.said; exec {command}"],
                cwd=self.folder,
                env=self._env(),
                stdout=stdout,
                stderr=stderr,
            )
        until(lambda: process.poll() is not None or out.stat().st_size or None, command, SECONDS)
        assert process.poll() is None, f"{command}: {out.with_suffix('.err').read_text()[-2000:]}"

    def _stop(self, name: str) -> None:
        command = next(command for command in self._servers if name in command)
        process = self._servers.pop(command)
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)

    def _swapped(self, text: str) -> str:
        for old, new in self.swaps.items():
            text = text.replace(old, new)
        return text

    def _env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mine = {"PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
        return {**mine, **self.environment}


def _parts(block: str) -> Iterator[str]:
    """Cut a block at the commands that stay or stop."""
    waiting: list[str] = []
    for line in block.replace("\\\n", "").splitlines():
        if line.endswith(" &") or line.startswith("stop "):
            if waiting:
                yield "\n".join(waiting)
            waiting = []
            yield line
        elif line.strip():
            waiting.append(line)
    if waiting:
        yield "\n".join(waiting)
