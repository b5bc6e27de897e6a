"""Asking NVIDIA's driver, against a library of our own; layouts and numbers against NVIDIA's own binding."""

import ctypes
from pathlib import Path

import pynvml
import pytest

from enclave import nvml, nvml_errors
from enclave.nvml import Driver, NoDriver, ask_driver, gpu_evidence
from quotary.attestation.devices import parse_evidence
from quotary.errors import CannotTell, Malformed
from tests.fakes.nvml import Library

NONCES = (b"a" * 32, b"b" * 32)
REPORT = "nvmlDeviceGetConfComputeGpuAttestationReport"
SETTINGS = "nvmlSystemGetConfComputeSettings"
READY = "nvmlSystemGetConfComputeGpusReadyState"


@pytest.fixture
def library(vectors: Path) -> Library:
    name = vectors / "nvidia" / "hopper-580.159.03-sdk"
    return Library(Path(f"{name}.report").read_bytes(), Path(f"{name}.chain.pem").read_bytes())


def test_every_gpu_gives_its_report_over_its_nonce(library: Library) -> None:
    found = parse_evidence(gpu_evidence(library, NONCES))
    assert [item.report.signed + item.report.signature for item in found] == [library.report] * 2
    assert len(found[0].chain) == 5
    assert (library.nonces, library.running) == (list(NONCES), 0)


def test_each_gpu_has_one_nonce() -> None:
    library = Library()
    for nonces in ((), NONCES[:1]):
        with pytest.raises(CannotTell, match="2 GPUs"):
            gpu_evidence(library, nonces)
    with pytest.raises(Malformed, match="32 bytes"):
        gpu_evidence(library, (b"a" * 31, b"b" * 32))
    assert library.running == 0


@pytest.mark.parametrize("name", ["nvmlInit_v2", REPORT])
def test_a_gpu_that_gives_no_evidence_is_reported(name: str) -> None:
    library = Library(failing={name: 3})
    with pytest.raises(CannotTell, match=rf"{name}: NVML_ERROR_NOT_SUPPORTED \(3\): .* confidential mode"):
        gpu_evidence(library, NONCES)
    library.failing, library.missing = {}, name
    with pytest.raises(CannotTell, match="too old"):
        gpu_evidence(library, NONCES)
    assert library.running == 0


def test_a_refused_report_says_which_mode_the_driver_is_in() -> None:
    library = Library(failing={REPORT: 999}, settings=(0, 0, 0, 0))
    with pytest.raises(CannotTell, match=r"NVML_ERROR_UNKNOWN \(999\).*confidential mode: off"):
        gpu_evidence(library, NONCES)


def test_the_driver_says_its_version_and_its_gpus() -> None:
    library = Library()
    assert ask_driver(library) == Driver("580.159.03", "on", True, ("NVIDIA H100 80GB HBM3",) * 2)
    assert library.running == 0


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ((2, 1, 0, 0), "on"),
        ((2, 1, 0, 2), "on"),
        ((2, 1, 1, 0), "devtools"),
        ((2, 0, 1, 1), "devtools"),
        ((2, 0, 0, 1), "protected PCIe"),
        ((2, 1, 0, 1), "protected PCIe"),
        ((1, 1, 0, 0), "not in production"),
        ((0, 1, 0, 0), "not in production"),
        ((1, 0, 0, 1), "not in production"),
        ((2, 0, 0, 0), "off"),
        ((0, 0, 0, 0), "off"),
        ((2, 0, 0, 2), "off"),
        ((2, 0, 1, 0), "off"),
    ],
)
def test_only_a_production_gpu_without_developers_tools_is_confidential(
    settings: tuple[int, int, int, int], mode: str
) -> None:
    assert ask_driver(Library(settings=settings)).mode == mode
    assert (mode in nvml.CONFIDENTIAL) == (mode in ("on", "protected PCIe"))


def test_outside_confidential_mode_nobody_waits_for_readiness() -> None:
    for library in (Library(failing={SETTINGS: 3}, ready=0), Library(settings=(2, 0, 0, 0), ready=0)):
        found = ask_driver(library)
        assert (found.mode, found.ready) == ("off", True)
    assert not ask_driver(Library(ready=0)).ready


@pytest.mark.parametrize("name", [SETTINGS, READY])
def test_any_other_failure_is_no_answer(name: str) -> None:
    library = Library(failing={name: 15})
    with pytest.raises(CannotTell, match="fell off its bus"):
        ask_driver(library)
    assert library.running == 0


def test_a_driver_that_is_not_loaded_is_told_from_one_that_fails() -> None:
    with pytest.raises(NoDriver, match="modprobe"):
        ask_driver(Library(failing={"nvmlInit_v2": 9}))


def test_a_library_that_is_missing_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libquotary-no-such-library.so.1")
    with pytest.raises(NoDriver, match="no NVIDIA driver"):
        nvml.load()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nvml.Report, pynvml.c_nvmlConfComputeGpuAttestationReport_t),
        (nvml.Certificate, pynvml.c_nvmlConfComputeGpuCertificate_t),
        (nvml.Settings, pynvml.c_nvmlSystemConfComputeSettings_v1_t),
    ],
)
def test_each_structure_lies_in_memory_as_nvidias_binding_has_it(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    def places(kind):  # type: ignore[no-untyped-def]
        fields = [getattr(kind, name) for name, *_ in kind._fields_]
        return ctypes.sizeof(kind), [(field.offset, field.size) for field in fields]

    assert places(ours) == places(theirs)


def test_the_constants_are_those_of_nvidias_binding() -> None:
    assert pynvml.nvmlSystemConfComputeSettings_v1 == nvml.SETTINGS_VERSION
    assert nvml.NONCE_LENGTH == pynvml.NVML_CC_GPU_CEC_NONCE_SIZE
    assert nvml.NAME_LENGTH == pynvml.NVML_DEVICE_NAME_V2_BUFFER_SIZE
    assert nvml.VERSION_LENGTH == pynvml.NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
    assert nvml._PRODUCTION == pynvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD
    assert nvml._PROTECTED_PCIE == pynvml.NVML_CC_SYSTEM_MULTIGPU_PROTECTED_PCIE
    assert (pynvml.NVML_CC_SYSTEM_FEATURE_DISABLED, pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF) == (0, 0)


def test_every_error_has_nvmls_name_and_number() -> None:
    known = {value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    assert known == nvml_errors.NAMES
    assert nvml_errors.REMEDIES.keys() <= known.keys()
