"""``docs/checks.md`` lists every named check of a judgement and of TDX, and the test that fails only for it."""

import re

from quotary.client.verdict import NAMES
from tests.attestation import test_tdx_verify
from tests.attestation.test_tdx_verify import CRYPTOGRAPHY, LEVELS, spoiled_certificates
from tests.client import test_verify, test_verify_devices
from tests.client.test_verify import CASES
from tests.conftest import ROOT

JUDGE, TDX = (ROOT / "docs" / "checks.md").read_text().split("## A TDX quote")


def rows(text: str) -> dict[str, set[str]]:
    found = re.findall(r"^\| `(.+?)` \| (.+?) \|$", text, re.MULTILINE)
    return {check: set(re.findall(r"`(\w+)`", tests)) for check, tests in found}


def test_every_check_of_a_judgement_names_the_changes_that_fail_only_for_it() -> None:
    page = rows(JUDGE)
    assert set(page) == NAMES
    for check, tests in page.items():
        known = (
            {change.__name__ for change, _ in CASES.get(check, [])}
            | set(vars(test_verify))
            | set(vars(test_verify_devices))
        )
        assert tests, check
        assert tests <= known, check
        assert check not in CASES or tests == {change.__name__ for change, _ in CASES[check]}


def test_every_check_of_a_tdx_quote_names_its_test() -> None:
    made = {
        "test_a_spoiled_certificate_is_rejected": {check for _, _, check in spoiled_certificates()},
        "test_one_spoiled_part_is_rejected_by_its_own_check": {check for check, _ in CRYPTOGRAPHY},
        "test_a_machine_below_every_level_is_refused": {check for check, _ in LEVELS},
    }
    page = rows(TDX)
    assert set().union(*made.values()) <= set(page)
    for check, tests in page.items():
        assert tests, check
        for name in tests:
            assert callable(getattr(test_tdx_verify, name))
            assert name not in made or check in made[name]
