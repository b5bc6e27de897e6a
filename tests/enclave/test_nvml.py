"""Asking GPUs for evidence, against a driver's library of our own."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from enclave import nvml
from enclave.nvml import gpu_evidence
from quotary.attestation.devices import parse_evidence
from quotary.errors import CannotTell, Malformed

NONCES = (b"a" * 32, b"b" * 32)


class Library:
    """NVML with GPUs that all give one report, and remember the nonces."""

    def __init__(self, report: bytes, chain: bytes, count: int = 2) -> None:
        self.report, self.chain, self.count = report, chain, count
        self.nonces: list[bytes] = []
        self.running = 0
        self.failing: dict[str, int] = {}
        self.missing = ""

    def __call__(self, name: str) -> Callable[..., int]:
        if name == self.missing:
            raise AttributeError(name)
        return lambda *arguments: self.failing.get(name) or self._act(name, *arguments)

    def _act(self, name: str, *arguments) -> int:  # type: ignore[no-untyped-def]
        found = arguments[-1]._obj if arguments else None
        if name == "nvmlInit_v2":
            self.running += 1
        elif name == "nvmlShutdown":
            self.running -= 1
        elif name == "nvmlDeviceGetCount_v2":
            found.value = self.count
        elif name.endswith("AttestationReport"):
            self.nonces.append(bytes(found.nonce))
            ctypes.memmove(found.report, self.report, len(self.report))
            found.length = len(self.report)
        elif name.endswith("Certificate"):
            ctypes.memmove(found.attestation_chain, self.chain, len(self.chain))
            found.attestation_length = len(self.chain) + 1
        return 0


@pytest.fixture
def library(vectors: Path) -> Library:
    name = vectors / "nvidia" / "hopper-580.159.03-sdk"
    return Library(Path(f"{name}.report").read_bytes(), Path(f"{name}.chain.pem").read_bytes())


def test_every_gpu_gives_its_report_over_its_nonce(library: Library) -> None:
    found = parse_evidence(gpu_evidence(library, NONCES))
    assert [item.report.signed + item.report.signature for item in found] == [library.report] * 2
    assert len(found[0].chain) == 5
    assert (library.nonces, library.running) == (list(NONCES), 0)


def test_each_gpu_has_one_nonce(library: Library) -> None:
    for nonces in ((), NONCES[:1]):
        with pytest.raises(CannotTell, match="2 GPUs"):
            gpu_evidence(library, nonces)
    with pytest.raises(Malformed, match="32 bytes"):
        gpu_evidence(library, (b"a" * 31, b"b" * 32))
    assert library.running == 0


@pytest.mark.parametrize("name", ["nvmlInit_v2", "nvmlDeviceGetConfComputeGpuAttestationReport"])
def test_a_gpu_that_gives_no_evidence_is_reported(library: Library, name: str) -> None:
    library.failing = {name: 3}
    with pytest.raises(CannotTell, match=f"{name} failed with 3"):
        gpu_evidence(library, NONCES)
    library.failing, library.missing = {}, name
    with pytest.raises(CannotTell, match="too old"):
        gpu_evidence(library, NONCES)
    assert library.running == 0


def test_a_library_that_is_missing_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libquotary-no-such-library.so.1")
    with pytest.raises(CannotTell, match="no NVIDIA driver"):
        nvml.load()


def test_the_structures_have_nvmls_sizes() -> None:
    assert ctypes.sizeof(nvml.Report) == 12 + 32 + 0x2000 + 0x1000
    assert ctypes.sizeof(nvml.Certificate) == 8 + 0x1000 + 0x1400
