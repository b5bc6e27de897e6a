"""Every real TDX quote at every time it was judged."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotary.attestation import tdx
from quotary.attestation.appraise import appraise
from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Facts
from quotary.attestation.roots import VENDOR_ROOTS, simulator_root
from quotary.errors import Refused, Rejected
from tests.attestation.rules import ANYTHING, ROW

PADDED = "tdx/v4-00806f05-gcp-cos113-padded-8000.quote"
CUT = "tdx/v4-00806f05-gcp-cos113-uptodate-then-outofdate.quote"
# What the second verifier says, and the check of ours that says the same.
REFUSALS = {
    "SEPT_VE_DISABLE is not enabled": "sept_ve_disable",
    "Debug mode is enabled": "debug",
    "No matching TCB level found": "tcb level",
}


@dataclass(frozen=True)
class Run:
    file: str
    collateral: str
    at: int
    status: str | None
    advisories: tuple[str, ...]
    error: str | None


def runs(vectors: Path) -> Iterator[Run]:
    manifest = json.loads((vectors / "manifest.json").read_text())
    found = manifest["files"] if isinstance(manifest, dict) else manifest
    for entry in found:
        if entry["file"].startswith("tdx/") and "runs" in entry:
            for run in entry["runs"]:
                said = run["dcap_qvl"]
                yield Run(
                    entry["file"],
                    run["collateral"],
                    run["at"],
                    said.get("status"),
                    tuple(said.get("advisories", ())),
                    said.get("error"),
                )


def collateral(vectors: Path, name: str) -> Collateral:
    return Collateral.parse(json.loads((vectors / name).read_text()))


def verify(vectors: Path, file: str, name: str, at: int) -> Facts:
    quote = tdx.TDXQuote.parse((vectors / file).read_bytes())
    return tdx.verify(quote, collateral(vectors, name), datetime.fromtimestamp(at, UTC), VENDOR_ROOTS)


def admit(facts: Facts) -> None:
    """Appraise by what the vendor's rules alone demand: RTMR3 is the guest's own, and ours to want as zero."""
    appraise(replace(facts, registers={**facts.registers, "rtmr3": bytes(48)}), ANYTHING, ROW)


def test_every_real_quote_gets_its_expected_verdict_at_its_time(vectors):
    judged = 0
    for run in runs(vectors):
        judged += 1
        if run.error is None:
            facts = verify(vectors, run.file, run.collateral, run.at)
            admit(facts)
            assert facts.platform == "tdx"
            assert (facts.tcb.status, facts.tcb.advisories) == (run.status, run.advisories), run
        else:
            with pytest.raises(Refused) as refused:
                admit(verify(vectors, run.file, run.collateral, run.at))
            assert refused.value.check == REFUSALS[run.error], run
    assert judged == 33


def test_a_padded_quote_is_the_quote_without_its_padding(vectors):
    padded, cut = (tdx.TDXQuote.parse((vectors / name).read_bytes()) for name in (PADDED, CUT))
    assert (padded.body, padded.signed, padded.section.signature) == (
        cut.body,
        cut.signed,
        cut.section.signature,
    )


def test_the_evaluation_number_decides_between_up_to_date_and_not(vectors):
    """The same quote of the same machine, half a year and one TCB recovery apart."""
    first = verify(vectors, CUT, "collateral/tdx-00806f050000-eval17-2025-10-19.json", 1760899730)
    second = verify(vectors, CUT, "collateral/tdx-00806f050000-eval18-2026-01-27.json", 1769510999)
    assert (first.tcb.status, first.tcb.evaluation_number) == ("UpToDate", 17)
    assert (second.tcb.status, second.tcb.evaluation_number) == ("OutOfDate", 18)
    assert second.tcb.superseded_at == datetime(2024, 11, 13, tzinfo=UTC)


def test_collateral_outside_its_dates_is_rejected(vectors):
    name, at = "collateral/tdx-b0c06f000000-eval17-2025-06-19.json", 1750332747
    for wrong in (at - 86400, at + 40 * 86400):
        with pytest.raises(Rejected):
            verify(vectors, "tdx/v4-b0c06f-dcapqvl-uptodate.quote", name, wrong)


def test_simulated_vectors_hold_under_their_own_root_alone(vectors):
    folder = vectors / "measure" / "sim"
    quote = tdx.TDXQuote.parse((folder / "tdx-quote.bin").read_bytes())
    found = Collateral.parse(json.loads((folder / "tdx-collateral.json").read_text()))
    now = datetime.fromtimestamp(json.loads((folder / "README.json").read_text())["now"], UTC)
    digest = hashlib.sha256((folder / "tdx-root.der").read_bytes()).digest()
    facts = tdx.verify(quote, found, now, (simulator_root("tdx", digest),))
    assert (facts.platform, facts.simulated, facts.tcb.status) == ("sim-tdx", True, "UpToDate")
    with pytest.raises(Refused) as refused:
        tdx.verify(quote, found, now, VENDOR_ROOTS)
    assert refused.value.check == "simulated evidence"
    with pytest.raises(Rejected):
        tdx.verify(quote, found, now, (simulator_root("tdx", bytes(32)),))


def test_real_evidence_under_a_simulators_root_is_rejected(vectors):
    run = next(run for run in runs(vectors) if run.error is None)
    quote = tdx.TDXQuote.parse((vectors / run.file).read_bytes())
    now = datetime.fromtimestamp(run.at, UTC)
    with pytest.raises(Rejected) as refused:
        tdx.verify(quote, collateral(vectors, run.collateral), now, (simulator_root("tdx", bytes(32)),))
    assert refused.value.check == "root"


def test_real_quotes_with_simulated_collateral_are_refused(vectors):
    run = next(run for run in runs(vectors) if run.error is None)
    quote = tdx.TDXQuote.parse((vectors / run.file).read_bytes())
    simulated = Collateral.parse(json.loads((vectors / "measure/sim/tdx-collateral.json").read_text()))
    with pytest.raises(Refused) as refused:
        tdx.verify(quote, simulated, datetime.fromtimestamp(run.at, UTC), VENDOR_ROOTS)
    assert refused.value.check == "simulated evidence"


def test_a_verification_takes_at_most_twenty_milliseconds(vectors):
    run = next(run for run in runs(vectors) if run.error is None)
    data, members = (vectors / run.file).read_bytes(), json.loads((vectors / run.collateral).read_text())
    took = []
    for _ in range(9):
        started = time.perf_counter()
        tdx.verify(
            tdx.TDXQuote.parse(data),
            Collateral.parse(members),
            datetime.fromtimestamp(run.at, UTC),
            VENDOR_ROOTS,
        )
        took.append(time.perf_counter() - started)
    assert min(took) < 0.020
