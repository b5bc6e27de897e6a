"""Where the model may lie: on the CPU, or on a GPU whose driver says that its host cannot look into it.

The driver belongs to the measured image, so its word is enough to refuse; it is no evidence, and a host could
make up a GPU. So one is used only where the release demands devices, which the boot check has verified then.
Only an enclave that is simulated anyway may use one that anybody can look into, and only when it is told to.
"""

from collections.abc import Callable

from enclave.events import GPUNotUsed, emit
from enclave.nvml import CONFIDENTIAL, Driver, NoDriver
from quotary.errors import Refused

AUTO, CPU, CUDA = "auto", "cpu", "cuda"


def without_evidence(wanted: str) -> str:
    """Give the CPU where no GPU was verified, or raise ``Refused`` where nothing but a GPU will do."""
    if wanted == CUDA:
        raise Refused(
            "gpu evidence", "a release that demands no devices", "one that does, and --attest-devices"
        )
    return CPU


def place(wanted: str, ask: Callable[[], Driver], *, simulation: bool) -> str:
    """Give ``cpu`` or ``cuda``; ask: the driver.

    wanted: ``cpu``; ``cuda``, and nothing else will do; ``auto``: the CPU where no GPU is confidential
    Raises ``Refused`` for a GPU that may not see prompts, ``CannotTell`` where the driver does not answer.
    """
    if wanted == CPU:
        return CPU
    try:
        driver = ask()
    except NoDriver:
        if wanted == CUDA:
            raise
        return CPU
    if wanted == AUTO and not driver.gpus:
        return CPU
    if driver.mode not in CONFIDENTIAL and not (simulation and wanted == CUDA):
        if wanted == AUTO:
            emit(GPUNotUsed(len(driver.gpus)))
            return CPU
        raise Refused(
            "gpu confidential mode",
            driver.mode,
            " or ".join(sorted(CONFIDENTIAL)),
            next_command="docs/gpu.md",
        )
    if not driver.ready:
        raise Refused("gpu ready state", "not set", "set, after its evidence was verified")
    return CUDA
