"""The verbs of a program inside a TEE: what is attested verifies, over that challenge alone; what is sealed opens."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from enclave.device import DeviceEvidence, Evidence
from enclave.serve import Options
from enclave.tee import TEE, Report, detect_tee, serve, verify
from quotary.attestation.roots import VENDOR_ROOTS, Root
from quotary.errors import CannotTell, Malformed, QuotaryError, Refused, Rejected, Unsupported, Usage
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.enclave.test_seal import SECRET, Number, Source
from tests.fakes.authority import NOW
from tests.fakes.machine import hardware, registers

CHALLENGE = b"challenge-nonce-from-verifier-abc123"


@dataclass(frozen=True, slots=True)
class Simulated:
    """A device whose vendor is simulated."""

    vendor: Platform

    def quote(self, report_data: bytes) -> Evidence:
        return Evidence(self.vendor.quote(registers(), report_data), self.vendor.collateral)

    def devices(self, nonces: object) -> DeviceEvidence:
        raise CannotTell("no GPUs")


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def tee(vendor: tuple[PKI, Platform]) -> TEE:
    return TEE(Simulated(vendor[1]), Source())


@pytest.fixture
def roots(vendor: tuple[PKI, Platform]) -> tuple[Root, ...]:
    return (Root("sim-tdx", vendor[0].root_sha256, "simulator"),)


def test_what_is_attested_verifies_over_the_challenge(tee: TEE, roots: tuple[Root, ...]) -> None:
    report = tee.attest(CHALLENGE)
    assert report.platform == "tdx"
    facts = verify(report, CHALLENGE, NOW, roots)
    assert (facts.platform, facts.simulated) == ("sim-tdx", True)
    assert facts.registers["mrtd"] == registers().mrtd


@pytest.mark.parametrize("asked", [CHALLENGE + b"4", CHALLENGE[:-1], b"\x01" * 64])
def test_another_challenge_is_rejected(tee: TEE, roots: tuple[Root, ...], asked: bytes) -> None:
    with pytest.raises(Rejected, match="user data"):
        verify(tee.attest(CHALLENGE), asked, NOW, roots)


def test_simulated_evidence_is_none_under_the_vendors_roots(tee: TEE) -> None:
    with pytest.raises(QuotaryError):
        verify(tee.attest(CHALLENGE), CHALLENGE, NOW, VENDOR_ROOTS)


def test_a_changed_report_is_refused(tee: TEE, roots: tuple[Root, ...]) -> None:
    report: Report = tee.attest(CHALLENGE)
    for at in (60, 200, 600, 700):
        changed = report.evidence[:at] + bytes([report.evidence[at] ^ 1]) + report.evidence[at + 1 :]
        with pytest.raises(QuotaryError):
            verify(replace(report, evidence=changed), CHALLENGE, NOW, roots)


@pytest.mark.parametrize("wrong", [b"", bytes(5), b"x" * 65])
def test_user_data_that_says_nothing_or_does_not_fit_is_refused(tee: TEE, wrong: bytes) -> None:
    with pytest.raises(Malformed, match="user data"):
        tee.attest(wrong)


def test_a_secret_seals_to_28_bytes_more_and_opens_again(tee: TEE) -> None:
    counter = Number()
    sealed = tee.seal("my-sealed-data-v1", SECRET, counter)
    assert (len(SECRET), len(sealed)) == (33, 61)
    assert tee.unseal("my-sealed-data-v1", sealed, counter) == SECRET
    with pytest.raises(Rejected):
        tee.unseal("another", sealed, counter)


def test_hardware_without_a_sealing_key_says_so(vendor: tuple[PKI, Platform]) -> None:
    with pytest.raises(Unsupported, match="no sealing key"):
        TEE(Simulated(vendor[1])).seal("x", SECRET, Number())


def test_a_machine_without_a_tee_is_told(tmp_path: Path) -> None:
    if Path("/dev/tdx_guest").exists() or Path("/dev/sev-guest").exists() or Path("/dev/nsm").exists():
        pytest.skip("this machine has a TEE")
    with pytest.raises(CannotTell, match="--tee auto"):
        detect_tee()
    with pytest.raises(Usage):
        detect_tee("sgx")


def test_nothing_is_served_by_a_process_whose_surroundings_are_not_the_measured_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "other.so")
    with pytest.raises(Refused, match="environment: found the variable"):
        serve(cast(Options, None), "127.0.0.1:0")
