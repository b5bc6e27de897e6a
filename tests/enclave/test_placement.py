"""Which device a model may lie on: nothing but a confidential GPU, or the CPU."""

import pytest

from builder.model import MadeModel
from enclave import nvml
from enclave.boot import Consequence, consequence
from enclave.nvml import NoDriver
from enclave.placement import AUTO, CPU, CUDA, Placement
from enclave.serve import load_model
from quotary.errors import CannotTell, Refused, Rejected
from tests.fakes.nvml import Library

OFF, DEVTOOLS, SIMULATED, ON = (2, 0, 0, 0), (2, 1, 1, 0), (1, 1, 0, 0), (2, 1, 0, 0)


def placed(wanted: str, library: Library, *, simulation: bool = False) -> str:
    return Placement(lambda: library, simulation=simulation).place(wanted)


def test_a_confidential_gpu_is_used_unless_the_cpu_is_wanted() -> None:
    assert [placed(wanted, Library(settings=ON)) for wanted in (AUTO, CUDA, CPU)] == [CUDA, CUDA, CPU]


@pytest.mark.parametrize("settings", [OFF, DEVTOOLS, SIMULATED])
def test_a_gpu_that_others_can_look_into_sees_no_prompt(settings: tuple[int, int, int, int]) -> None:
    library = Library(settings=settings)
    assert placed(AUTO, library) == CPU
    with pytest.raises(
        Refused, match=r"gpu confidential mode: found (off|devtools|not in production), wanted on"
    ):
        placed(CUDA, library)


def test_a_simulation_may_use_any_gpu_when_told_to() -> None:
    library = Library(settings=OFF)
    assert placed(CUDA, library, simulation=True) == CUDA
    assert placed(AUTO, library, simulation=True) == CPU


@pytest.mark.parametrize("wanted", [AUTO, CUDA])
def test_a_confidential_gpu_takes_work_once_its_evidence_was_verified(wanted: str) -> None:
    library = Library(ready=0)
    assert placed(wanted, library) == CUDA
    assert library.ready == 1
    assert library.running == 0


def test_a_gpu_that_does_not_become_ready_is_refused() -> None:
    class Stubborn(Library):
        def _act(self, name: str, *arguments) -> int:  # type: ignore[no-untyped-def]
            return 0 if "SetConfCompute" in name else Library._act(self, name, *arguments)

    with pytest.raises(Refused, match="gpu ready state"):
        placed(CUDA, Stubborn(ready=0))
    with pytest.raises(CannotTell, match="NO_PERMISSION"):
        placed(CUDA, Library(ready=0, failing={"nvmlSystemSetConfComputeGpusReadyState": 4}))


@pytest.mark.parametrize("settings", [DEVTOOLS, SIMULATED])
def test_nobody_makes_a_gpu_ready_that_others_can_look_into(settings: tuple[int, int, int, int]) -> None:
    library = Library(settings=settings, ready=0)
    with pytest.raises(Refused, match="gpu ready state"):
        placed(CUDA, library, simulation=True)
    assert library.ready == 0


def test_a_model_on_the_cpu_asks_no_driver_again() -> None:
    library = Library(settings=ON)
    placement = Placement(lambda: library, simulation=False)
    placement.place(CPU)
    library.settings = DEVTOOLS
    placement.check()


@pytest.mark.parametrize("settings", [OFF, DEVTOOLS, SIMULATED])
def test_a_gpu_that_others_can_look_into_later_is_the_end(settings: tuple[int, int, int, int]) -> None:
    library = Library(settings=ON)
    placement = Placement(lambda: library, simulation=False)
    placement.place(CUDA)
    placement.check()
    library.settings = settings
    with pytest.raises(Refused) as caught:
        placement.check()
    assert consequence(caught.value) == Consequence("gpu_refused", final=True)


def test_a_gpu_that_was_reset_or_exchanged_takes_no_prompt_again() -> None:
    for changes in ({"ready": 0}, {"name": b"NVIDIA H200"}, {"count": 1}):
        library = Library(settings=ON)
        placement = Placement(lambda library=library: library, simulation=False)  # type: ignore[misc]
        placement.place(CUDA)
        before = {name: getattr(library, name) for name in changes}
        for name, value in changes.items():
            setattr(library, name, value)
        with pytest.raises(Refused, match="reset or exchanged") as caught:
            placement.check()
        assert consequence(caught.value) == Consequence("gpu_lost", final=False)
        # What it holds after that is not what was verified, whoever sets it ready again.
        for name, value in before.items():
            setattr(library, name, value)
        with pytest.raises(Refused, match="reset or exchanged"):
            placement.check()


def test_a_driver_that_does_not_answer_is_asked_again() -> None:
    library = Library(settings=ON)
    placement = Placement(lambda: library, simulation=False)
    placement.place(CUDA)
    library.failing = {"nvmlDeviceGetCount_v2": 15}
    with pytest.raises(Refused, match="fell off its bus") as caught:
        placement.check()
    assert consequence(caught.value) == Consequence("gpu_lost", final=False)
    library.failing = {}
    placement.check()


def test_no_driver_is_the_cpu_or_the_end() -> None:
    library = Library(failing={"nvmlInit_v2": 9})
    assert placed(AUTO, library) == CPU
    with pytest.raises(NoDriver):
        placed(CUDA, library)


def test_a_driver_that_fails_is_not_taken_for_an_absent_one() -> None:
    with pytest.raises(CannotTell, match="fell off its bus"):
        placed(AUTO, Library(failing={"nvmlInit_v2": 15}))


def test_a_driver_without_gpus_is_the_cpu() -> None:
    assert placed(AUTO, Library(count=0)) == CPU


def test_the_model_is_loaded_where_it_was_placed_and_not_read_where_it_may_not_lie(
    model: MadeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "load", lambda: Library(settings=OFF))
    production = Placement(nvml.load, simulation=False)
    found = load_model(model.folder, model.digest, AUTO, production)
    assert (found.kernel["device"], found.rows) == (CPU, 32)
    small = load_model(model.folder, model.digest, AUTO, production, cache_mib=16)
    assert 4 <= small.rows < 32
    with pytest.raises(Refused, match="gpu confidential mode"):
        load_model(model.folder, bytes(32), CUDA, production)
    with pytest.raises(Rejected, match="weights digest"):
        load_model(model.folder, bytes(32), CUDA, Placement(nvml.load, simulation=True))
