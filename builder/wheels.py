"""Ask the Python package index, through the machine's pip, for wheels of the image's interpreter.

pip resolves for another Python than its own when it is told every platform tag up to the image's C library;
no project's code runs here, since only wheels are taken.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from builder.lock import Wheel
from quotary.errors import CannotTell, Malformed

GLIBC_MINOR = 41  # Debian trixie
TIMEOUT_SECONDS = 900


def resolve(requirements: Sequence[str], python: str, without: frozenset[str], work: Path) -> list[Wheel]:
    """Return the wheels that requirements lead to now, sorted by name; ``without`` comes from elsewhere."""
    report = work / "report.json"
    report.unlink(missing_ok=True)
    words = [
        "install",
        "--dry-run",
        "--ignore-installed",
        "--target",
        str(work / "unused"),
        "--report",
        str(report),
    ]
    _pip([*words, *_target(python), *requirements])
    try:
        found = [_wheel(item) for item in json.loads(report.read_bytes())["install"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed("pip's report is not of the known form") from error
    return sorted((wheel for wheel in found if wheel.name not in without), key=lambda wheel: wheel.name)


def download(wheels: Iterable[Wheel], python: str, into: Path) -> None:
    """Download locked wheels into a folder; pip refuses other bytes than the locked ones."""
    into.mkdir(parents=True, exist_ok=True)
    listed = into / "requirements.txt"
    listed.write_text("".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in wheels))
    _pip(["download", "--no-deps", "--require-hashes", "-d", str(into), *_target(python), "-r", str(listed)])


def _target(python: str) -> list[str]:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(17, GLIBC_MINOR + 1)] + [
        "manylinux2014_x86_64"
    ]
    words = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    return words + [word for name in platforms for word in ("--platform", name)]


def _pip(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["no message"]
        raise CannotTell(f"pip {words[0]}: {lines[0]}", next_command="quotary build prefetch")


def _wheel(item: dict[str, dict[str, object]]) -> Wheel:
    name = str(item["metadata"]["name"]).lower().replace("_", "-").replace(".", "-")
    info = item["download_info"]
    hashes = info["archive_info"]["hashes"]  # type: ignore[index]  # a KeyError or TypeError becomes Malformed above
    filename = str(info["url"]).rsplit("/", 1)[1]
    return Wheel(name, str(item["metadata"]["version"]), filename, hashes["sha256"])
