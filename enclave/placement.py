"""Where the model may lie: on the CPU, or on a GPU whose driver says that its host cannot look into it.

The driver belongs to the measured image, so its word is enough to refuse; it is no evidence, and a host could
make up a GPU. So one is used only where the release demands devices, which the boot check has verified then.
Only an enclave that is simulated anyway may use one that anybody can look into, and only when it is told to.
"""

from collections.abc import Callable

from enclave.events import GPUNotUsed, emit
from enclave.nvml import CONFIDENTIAL, Call, Driver, NoDriver, accept_work, ask_driver
from quotary.errors import CannotTell, Refused

AUTO, CPU, CUDA = "auto", "cpu", "cuda"

# The names of the two checks that a serving enclave makes again (``boot.consequence``).
MODE, GPU = "gpu confidential mode", "gpu"

_CONFIDENTIAL = " or ".join(sorted(CONFIDENTIAL))


def without_evidence(wanted: str) -> str:
    """Give the CPU where no GPU was verified, or raise ``Refused`` where nothing but a GPU will do."""
    if wanted == CUDA:
        raise Refused(
            "gpu evidence", "a release that demands no devices", "one that does, and --attest-devices"
        )
    return CPU


class Placement:
    """Where the model was put, and whether it may stay there.

    driver: NVIDIA's library, loaded when it is needed
    """

    def __init__(self, driver: Callable[[], Callable[[str], Call]], *, simulation: bool) -> None:
        self._library, self._simulation = driver, simulation
        self._placed: Driver | None = None
        self._lost = ""

    def place(self, wanted: str) -> str:
        """Give ``cpu`` or ``cuda``. Called after the boot check held, with the evidence of the GPUs in it.

        wanted: ``cpu``; ``cuda``, and nothing else will do; ``auto``: the CPU where no GPU is confidential
        Raises ``Refused`` for a GPU that may not see prompts, ``CannotTell`` without an answer of the driver.
        """
        if wanted == CPU:
            return CPU
        try:
            driver = ask_driver(self._library())
        except NoDriver:
            if wanted == CUDA:
                raise
            return CPU
        if wanted == AUTO and not driver.gpus:
            return CPU
        if driver.mode not in CONFIDENTIAL and not (self._simulation and wanted == CUDA):
            if wanted == AUTO:
                emit(GPUNotUsed(len(driver.gpus)))
                return CPU
            raise Refused(MODE, driver.mode, _CONFIDENTIAL, next_command="docs/gpu.md")
        self._placed = self._ready(driver)
        return CUDA

    def check(self) -> None:
        """Ask the driver again: a GPU that holds the model is what it was, or ``Refused`` by name."""
        if self._placed is None:
            return
        try:
            driver = ask_driver(self._library())
        except CannotTell as error:
            raise Refused(GPU, str(error), "an answer of its driver") from error
        if driver.mode != self._placed.mode:
            raise Refused(MODE, driver.mode, self._placed.mode)
        if driver.gpus != self._placed.gpus or not driver.ready:
            # Whoever resets a GPU empties it; what it holds after that was verified by nobody.
            self._lost = "a GPU was reset or exchanged"
        if self._lost:
            raise Refused(GPU, self._lost, "the GPUs of the start", next_command="start the enclave again")

    def _ready(self, driver: Driver) -> Driver:
        """Let GPUs in confidential mode take work: their evidence was verified before anybody came here."""
        if not driver.ready and driver.mode in CONFIDENTIAL:
            accept_work(self._library())
            driver = ask_driver(self._library())
        if not driver.ready:
            raise Refused("gpu ready state", "not set", "set, after its evidence was verified")
        return driver
