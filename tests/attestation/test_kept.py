"""Kept evidence: one file, the same bytes again, and nothing else is taken for one."""

import re
from datetime import UTC, datetime

import pytest

from quotary.attestation.kept import Kept
from quotary.canonical import canonical
from quotary.errors import Malformed
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "formats" / "kept-evidence.md").read_text("utf-8")
GOOD = {"v": 1, "evidence": "AA==", "collateral": {"a": "Yg=="}, "judged_at": "2026-11-21T12:00:00Z"}


def test_the_pages_example_is_one_and_comes_back_byte_for_byte() -> None:
    example = re.search(r"```json example=kept\n(.*?)\n```", PAGE, re.DOTALL)
    assert example is not None
    found = Kept.parse(example[1].encode())
    assert (found.nonces, found.judged_at) == ((bytes(range(32)),), datetime(2026, 11, 21, 12, tzinfo=UTC))
    assert bytes(found) == example[1].encode()


def test_a_file_without_nonces_has_no_member_for_them() -> None:
    found = Kept.parse(canonical(GOOD))
    assert (found.evidence, found.collateral, found.nonces) == (b"\0", {"a": "b"}, ())
    assert bytes(found) == canonical(GOOD)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("v", 2),
        ("evidence", ""),
        ("evidence", "AA"),
        ("collateral", []),
        ("collateral", {"a": 1}),
        ("collateral", {"a": "/w=="}),
        ("collateral", {f"a{number}": "Yg==" for number in range(65)}),
        ("judged_at", "2026-11-21"),
        ("nonces", "00"),
        ("nonces", [1]),
        ("nonces", ["00"]),
        ("more", 1),
    ],
)
def test_a_file_with_one_wrong_member_is_malformed(member: str, value: object) -> None:
    with pytest.raises(Malformed):
        Kept.parse(canonical(GOOD | {member: value}))


@pytest.mark.parametrize("member", sorted(GOOD))
def test_a_file_that_lacks_a_member_is_malformed(member: str) -> None:
    with pytest.raises(Malformed):
        Kept.parse(canonical({name: value for name, value in GOOD.items() if name != member}))
