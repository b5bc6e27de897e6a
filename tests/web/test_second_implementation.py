"""F1, statements and the trie once more, in JavaScript: written from ``docs/formats`` alone and held to the same vectors.

``web/static/f1.js`` and ``trie.js`` are what an auditor's browser runs; ``tests/web/*.test.mjs`` compare outcomes, codes,
records byte for byte, and map roots with ``tests/vectors``.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.fakes.node import LEAST_NODE, NODE, node_version

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_second_implementation_agrees(path: Path) -> None:
    if node_version() < LEAST_NODE:
        pytest.skip(f"node >= {LEAST_NODE} is not on this machine")
    done = subprocess.run([str(NODE), "--test", str(path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # A file without tests passes too, so count them.
    passed = re.search(r"^(?:#|ℹ) pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed is not None, done.stdout
    assert int(passed[1]) > 0, done.stdout
