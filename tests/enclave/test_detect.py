"""What ``quotary quote detect`` says of NVIDIA's devices, from what the kernel shows and what a driver answers."""

import subprocess
import sys

import pytest

from enclave.detect import ask_gpus
from enclave.nvml import NoDriver, ask_driver
from quotary.client.detect import ABSENT, UNUSABLE, USABLE, Found
from quotary.errors import CannotTell
from tests.fakes.nvml import Library

SEEN = Found("nvidia", USABLE, "NVML", "the NVIDIA driver is loaded, 2 devices")
NOTHING = Found("nvidia", ABSENT, "", "no NVIDIA driver is loaded")


def said(library: Library, seen: Found = SEEN) -> Found:
    return ask_gpus(seen, lambda: ask_driver(library))[0]


@pytest.mark.parametrize("seen", [SEEN, NOTHING])
def test_a_gpu_in_confidential_mode_is_usable_and_named(seen: Found) -> None:
    found = said(Library(), seen)
    assert (found.state, found.interface) == (USABLE, "NVML")
    assert found.reason == "2 x NVIDIA H100 80GB HBM3, driver 580.159.03, confidential mode: on"


@pytest.mark.parametrize(
    ("settings", "mode"),
    [((2, 0, 0, 0), "off"), ((2, 1, 1, 0), "devtools"), ((1, 1, 0, 0), "not in production")],
)
def test_a_gpu_in_any_other_mode_is_there_and_unusable(
    settings: tuple[int, int, int, int], mode: str
) -> None:
    found = said(Library(settings=settings))
    assert (found.state, found.interface) == (UNUSABLE, "")
    assert f"H100 80GB HBM3, driver 580.159.03, confidential mode: {mode}; only in" in found.reason


def test_a_gpu_that_takes_no_work_yet_says_what_is_missing() -> None:
    found = said(Library(ready=0))
    assert found.state == USABLE
    assert found.reason.endswith("takes no work before nvidia-smi conf-compute -srs 1")


def test_a_driver_without_a_gpu_is_unusable() -> None:
    assert said(Library(count=0)).reason == "driver 580.159.03 drives no GPU"


def test_a_driver_that_fails_is_unusable_with_its_reason() -> None:
    found = said(Library(failing={"nvmlInit_v2": 18}))
    assert (found.state, found.interface) == (UNUSABLE, "")
    assert "2 devices; nvmlInit_v2: NVML_ERROR_LIB_RM_VERSION_MISMATCH (18)" in found.reason
    assert said(Library(failing={"nvmlInit_v2": 4}), NOTHING).state == UNUSABLE


def test_without_a_driver_the_kernel_has_the_last_word() -> None:
    def ask():  # type: ignore[no-untyped-def]
        raise NoDriver("no library")

    assert ask_gpus(NOTHING, ask) == (NOTHING, None)
    found, driver = ask_gpus(SEEN, ask)
    assert (found.state, found.interface, driver) == (UNUSABLE, "", None)
    assert found.reason.endswith("2 devices; no library")
    assert issubclass(NoDriver, CannotTell)


def test_the_command_runs_without_cryptography_and_model_libraries() -> None:
    heavy = "cryptography", "torch", "flask", "urllib3"
    code = (
        "import sys\n"
        f"for name in {heavy}: sys.modules[name] = None\n"
        "from quotary.cli import main\n"
        "main(['quote', 'detect', '--json'])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode in (0, 20), ran.stderr
    assert '"schema": "quotary/detect/v1"' in ran.stdout
