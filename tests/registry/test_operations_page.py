"""docs/operations.md: each alarm of the code stands in it; tests/docs runs its commands."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")


def test_every_warning_and_error_of_the_registry_is_explained() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "registry").rglob("*.py"))
    events = set(re.findall(r'log\.(?:warning|error)\(\s*"([a-z._]+)"', code))
    explained = set(re.findall(r"^\| `([a-z._]+)` \|", PAGE, re.MULTILINE)) - {"nginx.conf"}
    assert events == {name for name in explained if not name.endswith(".service")}


def test_the_files_that_the_page_names_exist() -> None:
    for name in re.findall(r"`([a-z.-]+(?:/[a-z.-]+)?\.(?:service|timer|conf))`", PAGE):
        assert (ROOT / "deploy" / name).is_file(), name
