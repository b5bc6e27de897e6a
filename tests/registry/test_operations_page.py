"""docs/operations.md: its commands exist, and each alarm of the code stands in it."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from quotary.cli import quotary

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
BLOCKS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("line", BLOCKS.splitlines())
def test_a_command_of_the_page_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "quotary"
    result = CliRunner().invoke(quotary, [*words[1:], "--help"])
    assert result.exit_code == 0
    assert f"Usage: {' '.join(words[:3])}" in result.output
    assert all(word in result.output for word in words if word.startswith("--"))


def test_every_warning_and_error_of_the_registry_is_explained() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "registry").rglob("*.py"))
    events = set(re.findall(r'log\.(?:warning|error)\(\s*"([a-z._]+)"', code))
    explained = set(re.findall(r"^\| `([a-z._]+)` \|", PAGE, re.MULTILINE)) - {"nginx.conf"}
    assert events == {name for name in explained if not name.endswith(".service")}


def test_the_files_and_numbers_that_the_page_names_exist() -> None:
    for name in re.findall(r"`([a-z.-]+(?:/[a-z.-]+)?\.(?:service|timer|conf))`", PAGE):
        assert (ROOT / "deploy" / name).is_file(), name
    metrics = (ROOT / "registry" / "metrics.py").read_text("utf-8")
    for name in re.findall(r"quotary_([a-z_]+?)(?:_total)?\b[^a-z_]", PAGE):
        assert name in metrics, name
