"""Real registries and witnesses as processes on loopback, for journeys.

``start_log(folder)`` makes a registry with one witness of its own and starts both; ports are the kernel's
choice. Nothing sleeps: ``until`` asks again at short intervals until a deadline.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import urllib3

from quotary.tlog.policy import TlogPolicy
from registry.config import Config
from registry.setup import WitnessLine, create_registry, write_policy
from registry.witness_app import create_witness
from tests.fakes.authority import ORIGIN, Authority

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 30.0
T = TypeVar("T")


def until(ask: Callable[[], T | None], what: str, seconds: float = SECONDS) -> T:
    """Ask until there is an answer; ``what`` names it in the failure."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        select.select([], [], [], 0.03)


@dataclass(slots=True)
class Server:
    """A child that prints its address on the first line of stdout."""

    words: list[str]
    errors: Path
    address: str = ""
    process: subprocess.Popen[bytes] | None = None
    module: str = "registry"

    def start(self) -> "Server":
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.words],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        self.address = self.process.stdout.readline().decode().strip() if ready else ""
        return self

    def stop(self) -> int:
        """Stop with SIGTERM, and give the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(SECONDS)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def log(self) -> str:
        return self.errors.read_text("utf-8", "replace") if self.errors.exists() else ""

    def children(self, verb: str) -> list[int]:
        """Give the ids of child processes whose command line has ``verb`` among its words."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        return [int(pid) for pid in text.split() if verb.encode() in _words(pid)]

    def kill_child(self, verb: str) -> None:
        for pid in self.children(verb):
            os.kill(pid, signal.SIGKILL)


def _words(pid: str) -> list[bytes]:
    """Give a process's command line, or nothing of one that has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass(slots=True)
class Log:
    """A running registry, its witness, and the authorities that may write to it.

    at: where it is asked, when that is not the registry itself
    """

    folder: Path
    registry: Server
    witness: Server
    authority: Authority
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))
    at: str = ""

    @property
    def address(self) -> str:
        return self.at or self.registry.address

    @property
    def policy(self) -> TlogPolicy:
        return TlogPolicy.parse(self.policy_text)

    @property
    def policy_text(self) -> str:
        return (self.folder / "policy.tlog").read_text("utf-8")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        # A connection of its own: one that the server is just closing must not be mistaken for an answer.
        sent = {**(headers or {}), "Connection": "close"}
        url = self.address + path
        return self.http.request(method, url, body=body, headers=sent, timeout=SECONDS, redirect=False)

    def get(self, path: str) -> bytes:
        answer = self.request("GET", path)
        assert answer.status == 200, (path, answer.status, answer.data)
        return answer.data

    def json(self, path: str) -> dict[str, object]:
        found = json.loads(self.get(path))
        assert isinstance(found, dict)
        return found

    def submit(self, *entries: bytes) -> list[int]:
        """Submit entries one after the other, wait until each is published, and give their indices."""
        return [self.publish(entry) for entry in entries]

    def publish(self, entry: bytes) -> int:
        def ask() -> int | None:
            answer = self.request("POST", "/api/v1/entries?wait=published", entry)
            assert answer.status in (200, 202), answer.data
            found = json.loads(answer.data)
            return int(found["index"]) + 1 if answer.status == 200 else None

        return until(ask, "the entry is published") - 1

    def wait_ready(self) -> None:
        until(lambda: self._is_ready(), "the registry is ready")

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            assert self.registry.process is not None
            assert self.registry.process.poll() is None, self.registry.log()
            return False

    def stop_registry(self) -> int:
        """Hang up, because a server waits for its callers, and stop it."""
        self.http.clear()
        return self.registry.stop()

    def stop(self) -> None:
        self.stop_registry()
        self.witness.stop()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the group to its end."""
    return subprocess.run(
        [sys.executable, "-m", "registry", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def start_log(
    folder: Path,
    *,
    publish_interval: float = 0.1,
    refresh: float = 2.0,
    origin: str = ORIGIN,
    workers: int = 1,
    threads: int = 8,
    quota: float | None = None,
    bind: str = "127.0.0.1:0",
) -> Log:
    """Make a registry and a witness under ``folder``, start both, and wait for the first checkpoint.

    quota: entries a second and at once, of an address and a builder; None for the usual ones
    """
    authority = Authority(origin=origin, now=datetime.now(UTC).replace(microsecond=0))
    place = (folder / "log", origin, "sqlite:///log.db", bind)
    config = Config(*place, publish_interval, refresh, promise_seconds=600, workers=workers, threads=threads)
    if quota is not None:
        config = replace(
            config,
            address_burst=int(quota),
            address_per_second=quota,
            builder_burst=int(quota),
            builder_per_second=quota,
        )
    public = create_registry(config, [], authority.genesis(), datetime.now(UTC))
    vkey = create_witness(folder / "witness", "witness.example.org", [public.log[0]]).verifier
    serve = ["witness", "serve", "--dir", str(folder / "witness"), "--bind", "127.0.0.1:0"]
    witness = Server(serve, folder / "witness.stderr").start()
    write_policy(config.policy, public, [WitnessLine(witness.address, vkey)], None)
    registry = Server(["serve", "--dir", str(folder / "log")], folder / "registry.stderr").start()
    log = Log(folder / "log", registry, witness, authority)
    log.wait_ready()
    return log
