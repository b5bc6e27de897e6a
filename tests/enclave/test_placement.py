"""Which device a model may lie on: nothing but a confidential GPU, or the CPU."""

import pytest

from builder.model import MadeModel
from enclave import nvml
from enclave.nvml import NoDriver, ask_driver
from enclave.placement import AUTO, CPU, CUDA, place
from enclave.serve import load_model
from quotary.errors import CannotTell, Refused, Rejected
from tests.fakes.nvml import Library

OFF, DEVTOOLS, SIMULATED, ON = (2, 0, 0, 0), (2, 1, 1, 0), (1, 1, 0, 0), (2, 1, 0, 0)


def placed(wanted: str, library: Library, *, simulation: bool = False) -> str:
    return place(wanted, lambda: ask_driver(library), simulation=simulation)


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
def test_a_gpu_whose_evidence_nobody_has_verified_takes_no_work(wanted: str) -> None:
    with pytest.raises(Refused, match="gpu ready state"):
        placed(wanted, Library(ready=0))


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
    assert load_model(model.folder, model.digest, AUTO, simulation=False).kernel["device"] == CPU
    with pytest.raises(Refused, match="gpu confidential mode"):
        load_model(model.folder, bytes(32), CUDA, simulation=False)
    with pytest.raises(Rejected, match="weights digest"):
        load_model(model.folder, bytes(32), CUDA, simulation=True)
