"""Real PostgreSQL servers of our own on unix sockets, where the machine has the programs."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30


def programs() -> Path | None:
    """Give the folder of the newest installed server, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@dataclass(frozen=True, slots=True)
class Server:
    """One server; its data and its socket lie in ``folder``."""

    programs: Path
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def create(self) -> None:
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "-N")

    def copy_of(self, primary: "Server", name: str) -> None:
        """Make this server's data a standby of ``primary``, which will know it under ``name``."""
        place = f"host={primary.folder} user=postgres application_name={name}"
        self._run("pg_basebackup", "-D", str(self.data), "-d", place, "-X", "stream", "-c", "fast", "-R")

    def start(self, *settings: str) -> None:
        options = f"-k {self.folder} " + " ".join(
            f"-c {setting}" for setting in ("listen_addresses=", "max_connections=60", *settings)
        )
        self._run(
            "pg_ctl", "-D", str(self.data), "-w", "-o", options, "-l", str(self.folder / "log"), "start"
        )

    def promote(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def kill(self) -> None:
        """Kill it as a lost machine would go: no shutdown, no word to its clients."""
        pid = int((self.data / "postmaster.pid").read_text("ascii").split("\n")[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        for found in (pid, *map(int, children)):
            with suppress(ProcessLookupError):  # one of its helpers may end by itself meanwhile
                os.kill(found, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the superuser, outside a transaction."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                found = connection.execute(text(statement))
                return [tuple(row) for row in found] if found.returns_rows else []
        finally:
            engine.dispose()

    def _run(self, program: str, *words: str) -> None:
        # The server refuses to run as root.
        prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(  # type: ignore[call-overload]  # the same words for each program
            [*prefix, str(self.programs / program), *words], check=True, cwd="/", timeout=60, **quiet
        )


@contextmanager
def folder_of(folder_of_programs: Path, *, on_disk: bool = False) -> Iterator[Server]:
    """Give a place for a server, and stop and remove it at the end; in memory where there is room.

    on_disk: where what a commit costs is to be measured
    """
    memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="pg", dir=MEMORY if memory and not on_disk else None))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    server = Server(folder_of_programs, folder)
    try:
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(folder_of_programs: Path, *, on_disk: bool = False) -> Iterator[Server]:
    """Start a server with empty data."""
    with folder_of(folder_of_programs, on_disk=on_disk) as server:
        server.create()
        server.start()
        yield server


@contextmanager
def running(folder_of_programs: Path) -> Iterator[str]:
    """Start a server on disk, for measurements, and give its URL without the database's name."""
    with started(folder_of_programs, on_disk=True) as server:
        yield server.url("{name}")
