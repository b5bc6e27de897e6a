"""A real driver: the same answers as by NVIDIA's own binding, and a refusal where the mode is off."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator

import pynvml
import pytest

from enclave import nvml
from enclave.nvml import CONFIDENTIAL, OFF, Driver, ask_driver, gpu_evidence
from enclave.placement import AUTO, CPU, CUDA, Placement
from quotary.errors import CannotTell, Refused


@pytest.fixture
def driver(cuda: str) -> Driver:
    return ask_driver(nvml.load())


@pytest.fixture
def theirs(cuda: str) -> Iterator[None]:
    pynvml.nvmlInit()
    yield
    pynvml.nvmlShutdown()


def test_the_driver_says_what_nvidias_binding_hears(driver: Driver, theirs: None) -> None:
    handles = [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(pynvml.nvmlDeviceGetCount())]
    assert driver.gpus == tuple(pynvml.nvmlDeviceGetName(handle) for handle in handles)
    assert driver.version == pynvml.nvmlSystemGetDriverVersion()


def test_the_mode_is_off_exactly_where_nvidias_binding_says_so(driver: Driver, theirs: None) -> None:
    settings = pynvml.c_nvmlSystemConfComputeSettings_v1_t()
    code = pynvml.nvmlSystemGetConfComputeSettings(pynvml.byref(settings))
    assert code in (0, pynvml.NVML_ERROR_NOT_SUPPORTED)
    protected = settings.multiGpuMode == pynvml.NVML_CC_SYSTEM_MULTIGPU_PROTECTED_PCIE
    enabled = settings.ccFeature == pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED
    assert (driver.mode != OFF) == (code == 0 and (enabled or protected))


def test_detection_names_the_gpu_its_driver_and_its_mode(driver: Driver) -> None:
    command = [sys.executable, "-m", "quotary", "quote", "detect", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode in (0, 20), ran.stderr
    document = json.loads(ran.stdout)
    assert document["nvidia"]["gpus"] == list(driver.gpus)
    assert (document["nvidia"]["driver"], document["nvidia"]["confidential_mode"]) == (
        driver.version,
        driver.mode,
    )
    assert ("nvidia" in document["usable"]) == (driver.mode in CONFIDENTIAL)


def test_evidence_is_given_over_the_nonce_or_refused_with_the_mode(driver: Driver) -> None:
    nonces = [bytes([at + 1]) * 32 for at in range(len(driver.gpus))]
    if driver.mode not in CONFIDENTIAL:
        with pytest.raises(CannotTell, match=rf"NVML_ERROR.*confidential mode: {driver.mode}"):
            gpu_evidence(nvml.load(), nonces)
        return
    found = json.loads(gpu_evidence(nvml.load(), nonces))
    assert len(found) == len(nonces)
    for item, nonce in zip(found, nonces, strict=True):
        assert nonce in base64.b64decode(item["evidence"])


def test_a_model_is_placed_on_the_gpu_only_where_its_host_cannot_look_in(driver: Driver) -> None:
    placement = Placement(nvml.load, simulation=False)
    if driver.mode in CONFIDENTIAL:
        assert placement.place(CUDA) == CUDA
        placement.check()
        return
    with pytest.raises(Refused, match="gpu confidential mode"):
        placement.place(CUDA)
    assert placement.place(AUTO) == CPU
