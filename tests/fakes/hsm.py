"""A PKCS #11 token of SoftHSM 2 in a folder of the test's own, in place of a real one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from quotary.token.place import TokenPlace

MODULES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"))
PIN = "correct-horse-canary-pin"


def module() -> Path | None:
    return next((path for path in MODULES if path.exists()), None)


def new_token(folder: Path, monkeypatch: pytest.MonkeyPatch, label: str = "quotary") -> TokenPlace:
    """Make an empty token and a file with its PIN, or skip where SoftHSM is not installed."""
    found, program = module(), shutil.which("softhsm2-util")
    if found is None or program is None:
        pytest.skip("no SoftHSM 2: apt-get install softhsm2")
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n", "ascii")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    words = ["--init-token", "--free", "--label", label, "--so-pin", "so-canary-pin", "--pin", PIN]
    subprocess.run([program, *words], check=True, capture_output=True, timeout=30)
    pin_file = folder / "pin"
    pin_file.touch(0o600)
    pin_file.write_text(PIN + "\n", "ascii")
    return TokenPlace(str(found), label, "log.example.org log", str(pin_file))


def take_away(folder: Path) -> None:
    """Pull the token out."""
    os.rename(folder / "tokens", folder / "away")


def put_back(folder: Path) -> None:
    """Plug it in again."""
    if (folder / "tokens").exists():
        (folder / "tokens").rmdir()
    os.rename(folder / "away", folder / "tokens")
