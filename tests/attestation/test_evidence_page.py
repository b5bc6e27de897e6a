"""The page about AMD, AWS and NVIDIA names every check that the code makes, and only files and tests that exist."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "evidence-snp-nitro-nvidia.md"
MODULES = ("amd", "devices", "hcl", "nitro", "nvidia", "rim", "snp", "snp_appraisal")
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE.read_text().split("## Every check")[1], re.MULTILINE)[2:]


def checks_of_the_code() -> set[str]:
    text = "".join((ROOT / "quotary" / "attestation" / f"{name}.py").read_text() for name in MODULES)
    raised = set(re.findall(r'raise (?:Rejected|Refused)\(\s*"([^"]+)"', text))
    passed = set(
        re.findall(r'(?:verify_chain|verify_p384|good_until|_listed|\.verify|\.refuse)\(\s*"([^"]+)"', text)
    )
    return raised | passed


def checks_of_the_page() -> set[str]:
    return {name for first, _ in ROWS for name in re.findall(r"`([^`]+)`", first)}


def test_every_check_of_the_code_stands_on_the_page() -> None:
    assert checks_of_the_code() - checks_of_the_page() == set()


def test_every_test_that_the_page_names_exists() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests" / "attestation").glob("test_*.py"))
    named = {name for _, last in ROWS for name in re.findall(r"`(test_\w+)`", last)}
    assert {name for name in named if f"def {name}(" not in text} == set()
    assert len(named) > 20


@pytest.mark.parametrize(
    "name", sorted({name for _, last in ROWS for name in re.findall(r"`((?:snp|nitro|nvidia)/[^`]+)`", last)})
)
def test_every_vector_that_the_page_names_exists(vectors: Path, name: str) -> None:
    assert (vectors / name).is_file()
