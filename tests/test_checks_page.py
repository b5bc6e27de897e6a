"""``docs/checks.md`` lists every named check of the code, a test that fails only for it, and real files that do."""

import ast
import re
from pathlib import Path

import pytest

from quotary.client.verdict import NAMES
from tests.attestation.manifest import entries, outcomes
from tests.attestation.named_checks import checks_of
from tests.attestation.test_snp_appraisal import REAL
from tests.attestation.test_tdx_verify import CRYPTOGRAPHY, LEVELS, spoiled_certificates
from tests.client import test_verify, test_verify_devices
from tests.client.test_verify import CASES
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

PAGE = (ROOT / "docs" / "checks.md").read_text()
CODE, TESTS = ROOT / "quotary" / "attestation", ROOT / "tests" / "attestation"
# Section: modules whose checks it lists, and where its tests are.
SECTIONS = {
    "A TDX quote": (
        ("tdx", "dcap", "collateral", "roots", "tcb", "appraise", "measure/events", "measure/rtmr0"),
        ("test_tdx_verify", "test_appraise", "measure/test_events"),
    ),
    "An SGX quote": (("sgx", "sgx_appraisal"), ("test_sgx",)),
    "A SEV-SNP report": (
        ("snp", "amd", "snp_appraisal", "hcl"),
        ("test_snp", "test_snp_endorsed", "test_snp_appraisal", "test_hcl"),
    ),
    "A Nitro document": (("nitro",), ("test_nitro",)),
    "NVIDIA devices and manifests": (
        ("nvidia", "rim", "devices", "ocsp"),
        ("test_nvidia", "test_rim", "test_devices", "test_ocsp"),
    ),
    "A token of NVIDIA's service": (("nras",), ("test_nras",)),
    "An RA-TLS certificate": (("ratls",), ("test_ratls",)),
}
# Modules without named checks of evidence: formats, and what a builder makes before a log knows it.
WITHOUT = {"binding", "measure/eif_signature", "measure/idblock", "measure/sigstruct"}
# A real file's check is the one that the cells of its row name.
FILES = r"`((?:tdx|sgx|snp|nitro|nvidia)/[^`]+)`"


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> dict[str, tuple[set[str], set[str]]]:
    """Give each check of a section with its tests and its real files."""
    found = re.findall(r"^\| `(.+?)` \| (.+?) \|(?: (.+?) \|)?$", section(title), re.MULTILINE)
    return {
        check: (set(re.findall(r"`(\w+)`", tests)), set(re.findall(FILES, files)))
        for check, tests, files in found
    }


def functions(names: tuple[str, ...]) -> dict[str, ast.FunctionDef]:
    trees = (ast.parse((TESTS / f"{name}.py").read_text()) for name in names)
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def modules(names: tuple[str, ...] | set[str]) -> list[Path]:
    return [CODE / f"{name}.py" for name in names]


def test_every_check_of_a_judgement_names_the_changes_that_fail_only_for_it() -> None:
    page = rows("A judgement")
    assert set(page) == NAMES
    for check, (tests, _) in page.items():
        known = {change.__name__ for change, _ in CASES.get(check, [])} | set(vars(test_verify))
        known |= set(vars(test_verify_devices))
        assert tests, check
        assert tests <= known, check
        assert check not in CASES or tests == {change.__name__ for change, _ in CASES[check]}


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_lists_exactly_the_checks_of_its_code(title: str) -> None:
    code = checks_of(modules(SECTIONS[title][0]), sorted(CODE.rglob("*.py")))
    assert set(rows(title)) == code


def test_no_module_with_checks_is_left_out() -> None:
    listed = {name for names, _ in SECTIONS.values() for name in names} | WITHOUT
    others = [path for path in CODE.rglob("*.py") if path not in modules(listed)]
    assert checks_of(others, sorted(CODE.rglob("*.py"))) == set()


@pytest.mark.parametrize("title", SECTIONS)
def test_a_check_is_explained_to_who_meets_it_for_the_first_time(title: str) -> None:
    """By its name, or by one with dots for the rest of it (``… revocation``)."""
    pages = (ROOT / "docs" / page for page in ("evidence.md", "evidence-snp-nitro-nvidia.md"))
    named = {name for page in pages for name in re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))}
    dotted = [re.compile(re.escape(name).replace("…", ".+")) for name in named if "…" in name]
    unexplained = [check for check in set(rows(title)) - named if not any(p.fullmatch(check) for p in dotted)]
    assert unexplained == []


@pytest.mark.parametrize("title", SECTIONS)
def test_a_check_has_a_test_with_keys_of_our_own(title: str) -> None:
    known = functions(SECTIONS[title][1])
    for check, (tests, _) in rows(title).items():
        assert tests, check
        for name in tests:
            assert "vectors" not in {argument.arg for argument in known[name].args.args}, name


def test_the_tests_of_a_tdx_quote_that_name_their_checks_name_these() -> None:
    made = {
        "test_a_spoiled_certificate_is_rejected": {check for _, _, check in spoiled_certificates()},
        "test_one_spoiled_part_is_rejected_by_its_own_check": {check for check, _ in CRYPTOGRAPHY},
        "test_a_machine_below_every_level_is_refused": {check for check, _ in LEVELS},
    }
    page = rows("A TDX quote")
    for name, checks in made.items():
        assert {check for check, (tests, _) in page.items() if name in tests} == checks


def test_a_real_file_ends_at_the_check_beside_it(vectors: Path) -> None:
    found = entries(vectors)
    strict = {f"snp/{name}.report": check for name, (check, _) in REAL.items()}
    seen = 0
    for title in SECTIONS:
        for check, (_, files) in rows(title).items():
            for file in files:
                assert strict.get(file) == check or set(outcomes(found[file])) == {check}, file
                seen += 1
    assert seen > 25


def test_files_that_are_no_evidence_are_read_by_nobody(vectors: Path) -> None:
    text = section("A token of NVIDIA's service").split("Bytes that are no evidence")[1]
    malformed, unsupported = (set(re.findall(FILES, part)) for part in text.split("`unsupported`"))
    assert len(malformed) > 5
    assert {outcomes(entries(vectors)[file]) for file in malformed} == {("malformed",)}
    assert {outcomes(entries(vectors)[file]) for file in unsupported} == {("unsupported",)}
