"""A real PostgreSQL server of our own on a unix socket, where the machine has the programs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Give the folder of the newest installed server, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@contextmanager
def running(folder_of_programs: Path) -> Iterator[str]:
    """Start a server with empty data and give its SQLAlchemy URL without the database's name."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    prefix = _as_somebody_else(folder)
    data = folder / "data"
    run = {"check": True, "capture_output": True, "cwd": "/"}
    initdb = [
        *prefix,
        str(folder_of_programs / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "postgres",
        "-N",
    ]
    control = [*prefix, str(folder_of_programs / "pg_ctl"), "-D", str(data), "-w"]
    try:
        subprocess.run(initdb, **run)  # type: ignore[call-overload]  # the same words for each program
        options = f"-k {folder} -c listen_addresses= -c max_connections=50"
        quiet = {"check": True, "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*control, "-o", options, "-l", str(folder / "log"), "start"], **quiet)  # type: ignore[call-overload]
        yield f"postgresql+psycopg://postgres@/{{name}}?host={folder}"
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_somebody_else(folder: Path) -> list[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "postgres")
    return ["runuser", "-u", "postgres", "--"]
