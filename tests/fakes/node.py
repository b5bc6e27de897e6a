"""The browser's modules run by node: where it is, and what a script of ours says to a list of questions."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import ROOT

LEAST_NODE = 20
NODE = shutil.which("node")


def node_version() -> int:
    """The major version of node, 0 where there is none."""
    if NODE is None:
        return 0
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0


def node_says(script: str, questions: Any, *words: str) -> Any:
    """Give questions to a script on its standard input, and read its answers; both are JSON."""
    if node_version() < LEAST_NODE:
        pytest.skip(f"node >= {LEAST_NODE} is not on this machine")
    done = subprocess.run(
        [str(NODE), script, *words], input=json.dumps(questions), cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
