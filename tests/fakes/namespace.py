"""Network namespaces of a test's own, in which it may have any address and count every packet."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import ROOT


@contextmanager
def namespace(name: str, *commands: str) -> Iterator[str]:
    """Make a namespace with its loopback up, and run ``ip -n NAME …`` for each command; skip where none can be had."""
    ip = shutil.which("ip") or shutil.which("/usr/sbin/ip")
    if ip is None:
        pytest.skip("no ip: apt-get install iproute2")
    inside = [[ip, "-n", name, *words.split()] for words in ("link set lo up", *commands)]
    try:
        for words in [[ip, "netns", "add", name], *inside]:
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be had here: {done.stderr.strip()}")
        yield name
    finally:
        subprocess.run([ip, "netns", "del", name], capture_output=True)


def inside(name: str, module: str, *words: str, seconds: int = 120) -> dict[str, Any]:
    """Run a module of ours in a namespace, and give the object that its last line is."""
    run = ["ip", "netns", "exec", name, sys.executable, "-m", module, *words]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found
