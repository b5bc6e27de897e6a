"""dcap-qvl, another team's verifier in another language, judges every quote under every bundle of documents.

Each disagreement stands here and is explained in ``docs/checks.md``; sev-snp-measure's opinion on launch
digests is asked in ``measure/test_snp.py``.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotary.attestation import sgx, sgx_appraisal, tdx
from quotary.attestation.appraise import appraise
from quotary.attestation.collateral import Collateral
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.errors import Judged, Malformed
from tests.attestation.manifest import Entry, entries
from tests.attestation.rules import ANYTHING, ROW, Row
from tests.conftest import ROOT

DAY = 86400
# We refuse, the other does not.
DISAGREEMENTS = {"tdx/derived-cert-type-5-at-outer-level.quote": ("UpToDate", ())}

Opinion = tuple[str, tuple[str, ...]] | None


def theirs(quote: bytes, members: dict[str, str], at: int) -> Opinion:
    """dcap-qvl's status and advisories, or None where it refuses."""
    dcap_qvl = pytest.importorskip("dcap_qvl")
    # The names differ in nothing but hex against bytes.
    found = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(members))
    try:
        report = dcap_qvl.verify(quote, found, at)
    except ValueError:
        return None
    return report.status, tuple(sorted(report.advisory_ids))


def ours(entry: Entry, members: dict[str, str], at: int) -> Opinion:
    """Our status and advisories, by what the vendor's rules alone demand."""
    now, collateral = datetime.fromtimestamp(at, UTC), Collateral.parse(members)
    try:
        if entry.file.startswith("sgx/"):
            facts = sgx.verify(sgx.SGXQuote.parse(entry.data), collateral, now, VENDOR_ROOTS)
            sgx_appraisal.appraise(facts, ANYTHING, Row())
        else:
            facts = tdx.verify(tdx.TDXQuote.parse(entry.data), collateral, now, VENDOR_ROOTS)
            appraise(replace(facts, registers={**facts.registers, "rtmr3": bytes(48)}), ANYTHING, ROW)
    except (Judged, Malformed):
        return None
    return facts.tcb.status, facts.tcb.advisories


def bundles(vectors: Path) -> Iterator[tuple[str, dict[str, str], tuple[int, ...]]]:
    """Every bundle, and times around the window in which all of it is in date."""
    for file, entry in entries(vectors).items():
        if entry.said["kind"] == "dcap-collateral":
            start, end = (
                int(datetime.fromisoformat(entry.said[name]).timestamp())
                for name in ("valid_from", "valid_to")
            )
            yield file, json.loads(entry.data), (start - DAY, start, end - 1, end + 1)


def test_a_second_verifier_agrees_about_every_quote_under_every_bundle(vectors: Path) -> None:
    quotes = [entry for entry in entries(vectors).values() if entry.said["kind"] == "quote"]
    pairs = believed = 0
    disagreed: dict[str, Opinion] = {}
    for bundle, members, times in bundles(vectors):
        for entry in quotes:
            for at in times:
                pairs += 1
                mine, other = ours(entry, members, at), theirs(entry.data, members, at)
                believed += mine is not None
                if mine != other:
                    assert mine is None, (entry.file, bundle, at)
                    disagreed[entry.file] = other
    assert (pairs, len(quotes)) == (34 * 16 * 4, 34)
    assert believed > 50
    assert disagreed == DISAGREEMENTS


def test_each_disagreement_is_explained() -> None:
    section = (ROOT / "docs" / "checks.md").read_text().split("## A second opinion\n")[1]
    for file in DISAGREEMENTS:
        assert f"`{file}`" in section
