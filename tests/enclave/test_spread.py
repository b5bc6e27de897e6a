"""A model over several devices: how it is split, that no step mixes them, and that it computes the same."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builder.model import MadeModel
from enclave import rows, spread, transformer
from enclave.chat import Message, Sampling
from enclave.job import Choice
from enclave.rows import Rows
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.errors import Unsupported
from tests.enclave.two_devices import FIRST, SECOND, Mixed, TwoDevices

GREEDY = Sampling(0, 1_000_000, 8, 1, ())
ASK = (Message("user", "What is a log?"),)


@pytest.fixture
def loaded(model: MadeModel) -> TransformerModel:
    return TransformerModel(read_weights(model.folder, model.digest), threads=1)


@given(st.integers(1, 200), st.integers(1, 16))
def test_neighbouring_layers_lie_together_and_no_device_has_two_more_than_another(
    layers: int, devices: int
) -> None:
    found = spread.plan(layers, min(layers, devices))
    assert list(found) == sorted(found)
    counts = [found.count(number) for number in range(min(layers, devices))]
    assert sum(counts) == layers
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("size", "free", "wanted"),
    [(80, [100], 1), (81, [100, 100], 2), (80, [100, 100], 1), (160, [100, 100, 100], 2),
     (161, [100, 100, 100], 3), (1000, [100, 100], 2), (120, [100, 60, 100], 3)],
)  # fmt: skip
def test_a_model_takes_as_few_devices_as_leave_room_for_caches(
    size: int, free: list[int], wanted: int
) -> None:
    assert spread.needed(size, free) == wanted


def logits(model: TransformerModel, device: torch.device) -> list[torch.Tensor]:
    """Read a prompt in two pieces, let it join twice, and step twice; what the sampler was shown."""
    seen: list[torch.Tensor] = []

    def choose(asked: Sequence[object], found: torch.Tensor) -> list[Choice]:
        assert found.device == device
        seen.append(found.clone())
        return [Choice(int(token)) for token in seen[-1][: len(asked)].argmax(1)]

    before, rows.choose, piece, rows.PIECE = rows.choose, choose, rows.PIECE, 7
    try:
        batch = Rows(model._model, count=5, length=64)
        prompt = model.encode(ASK)
        for _ in range(2):
            at = 0
            while at < len(prompt):
                at = batch.read(prompt, at)
            batch.join(len(prompt), GREEDY)
        batch.step()
        batch.leave(0)
        batch.step()
    finally:
        rows.choose, rows.PIECE = before, piece
    return seen


def test_a_split_model_computes_bit_by_bit_the_same_and_mixes_no_devices(
    loaded: TransformerModel, model: MadeModel
) -> None:
    wanted = logits(loaded, torch.device("cpu"))
    split = TransformerModel(read_weights(model.folder, model.digest), threads=1)
    with TwoDevices() as both:
        assert spread.spread(split._model, [FIRST, SECOND]) == (2, 1)
        on = {name: parameter.device for name, parameter in split._model.named_parameters()}
        assert {device for name, device in on.items() if ".layers.2." in name} == {SECOND}
        assert {device for name, device in on.items() if ".layers.2." not in name} == {FIRST}
        assert rows.token_bytes(split._model)[FIRST] == 2 * rows.token_bytes(split._model)[SECOND]
        before = both.moved
        found = logits(split, FIRST)
        assert both.moved > before
    assert len(found) == len(wanted) == 4
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_without_the_moves_two_devices_would_be_mixed(
    model: MadeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = TransformerModel(read_weights(model.folder, model.digest), threads=1)
    monkeypatch.setattr(spread, "_bring", lambda part, device: part.to(device))
    with TwoDevices():
        spread.spread(split._model, [FIRST, SECOND])
        with pytest.raises(Mixed, match="cuda:0, cuda:1"):
            logits(split, FIRST)


def test_a_model_of_fewer_layers_than_devices_is_unsupported(loaded: TransformerModel) -> None:
    with pytest.raises(Unsupported, match="over 4 devices"):
        spread.spread(loaded._model, [torch.device("cpu")] * 4)


def test_a_model_without_known_parts_is_unsupported(loaded: TransformerModel) -> None:
    del loaded._model.model.norm
    with pytest.raises(Unsupported, match="over 2 devices"):
        spread.spread(loaded._model, [torch.device("cpu")] * 2)


def test_the_receipt_names_gpus_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index % 1}")
    gpus = [torch.device("cuda", number) for number in range(2)]
    assert transformer._described(gpus, (2, 1)) == {"device": "cuda", "gpu": "GPU 0", "layers": "2+1"}
    assert transformer._described(gpus[:1], ()) == {"device": "cuda", "gpu": "GPU 0"}


def test_the_smallest_room_of_all_devices_decides_unless_the_size_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {0: 90, 1: 40}
    monkeypatch.setattr(transformer, "CACHE_BYTES", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index] * 4000, 0))
    tokens = {torch.device("cuda", 0): 10, torch.device("cuda", 1): 5}
    assert transformer._row_count(tokens, 1000, None) == 23
    assert transformer._row_count(tokens, 1000, 150_000) == 9
    with pytest.raises(Unsupported, match="caches of 4 answers"):
        transformer._row_count(tokens, 1000, 74_999)
