"""The script that runs other people's programs: what is not there is said, and is no pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.peers import PEERS
from tests.conftest import ROOT

SCRIPT = ROOT / "conformance" / "peers.py"


def run(programs: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--programs", programs],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "PATH": path},
    )


def test_a_peer_that_is_not_there_is_not_run_and_never_a_pass(tmp_path: Path) -> None:
    said = run(tmp_path, str(tmp_path))
    assert said.returncode == 20, said.stderr
    assert [line.split(",")[0] for line in said.stdout.splitlines()] == [
        f"{peer.name}: not run here" for peer in PEERS
    ]


def test_the_page_of_peers_names_each_of_them() -> None:
    rows = [
        line.split("|")[1].strip()
        for line in (ROOT / "conformance" / "PEER.md").read_text().splitlines()
        if "| " in line
    ]
    assert {peer.name for peer in PEERS} <= set(rows)


@pytest.mark.soak
def test_every_peer_that_is_there_agrees() -> None:
    """``QUOTARY_PEERS`` names the folder of their programs."""
    folder = os.environ.get("QUOTARY_PEERS")
    if folder is None:
        pytest.skip("no peers: QUOTARY_PEERS names no folder of programs (conformance/PEER.md)")
    said = run(Path(folder), os.environ["PATH"])
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count(": agrees on ") == len(PEERS)
