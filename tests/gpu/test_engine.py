"""The engine on a real GPU: the same answers as on the CPU, the hashed bytes, memory that is given back."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import safetensors.torch
import torch

from enclave.chat import Message, Sampling
from enclave.engine import Engine
from enclave.job import Job, Output
from enclave.sampler import Row, choose
from enclave.transformer import TransformerModel
from enclave.weights import Weights
from quotary.errors import Unsupported

QUESTIONS = ("What is a checkpoint?", "Who signs a release?", "Why is this log append-only?", "x")
GREEDY = {"temperature_ppm": 0}
SEEDED = {"temperature_ppm": 900_000, "top_p_ppm": 950_000, "seed": 5}
# The matrix library keeps its workspace for as long as the process lives.
WORKSPACE = 128 << 20


def sampling(**changes: object) -> Sampling:
    values: dict[str, object] = {
        "temperature_ppm": 0, "top_p_ppm": 1_000_000, "max_tokens": 32, "seed": 7, "stop": (),
    }  # fmt: skip
    return Sampling(**(values | changes))  # type: ignore[arg-type]


def ask(engine: Engine, question: str, **changes: object) -> tuple[list[str], Job]:
    job = engine.submit(engine.model.encode((Message("user", question),)), sampling(**changes))
    return [piece.text for piece in job.pieces()], job


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@pytest.fixture(scope="module")
def loaded(cuda: str, weights: Weights) -> TransformerModel:
    return TransformerModel(weights, device=cuda)


@pytest.fixture
def engine(loaded: TransformerModel) -> Iterator[Engine]:
    engine = Engine(loaded)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def on_cpu(cuda: str, weights: Weights) -> Iterator[Engine]:
    engine = Engine(TransformerModel(weights))
    yield engine
    engine.close()


def test_what_lies_on_the_gpu_is_what_was_hashed(loaded: TransformerModel, weights: Weights) -> None:
    hashed = safetensors.torch.load(weights.files["model.safetensors"])
    lying = loaded._model.state_dict()
    assert hashed.keys() <= lying.keys()
    for name, tensor in hashed.items():
        assert lying[name].device.type == "cuda"
        assert torch.equal(lying[name].cpu().view(torch.uint8), tensor.view(torch.uint8)), name
    assert all(tensor.is_cuda for tensor in loaded._model.buffers())


def test_the_receipt_names_the_gpu(loaded: TransformerModel) -> None:
    assert loaded.kernel["device"] == "cuda"
    assert loaded.kernel["gpu"] == torch.cuda.get_device_name(0)
    assert loaded.kernel["dtype"] == "float32"


@pytest.mark.parametrize("how", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_those_of_the_cpu(
    engine: Engine, on_cpu: Engine, question: str, how: dict[str, int]
) -> None:
    pieces, job = ask(engine, question, **how)
    wanted, on_cpu_job = ask(on_cpu, question, **how)
    assert job.output == on_cpu_job.output
    assert "".join(pieces) == "".join(wanted)


def test_a_second_copy_of_the_model_repeats_every_answer(engine: Engine, cuda: str, weights: Weights) -> None:
    second = Engine(TransformerModel(weights, device=cuda))
    for question in QUESTIONS:
        for how in (GREEDY, SEEDED):
            assert ask(engine, question, **how)[1].output == ask(second, question, **how)[1].output
    second.close()


def test_an_answer_comes_in_pieces_and_ends_where_it_is_told_to(engine: Engine) -> None:
    hot = {"temperature_ppm": 2_000_000, "seed": 3, "max_tokens": 200}
    job = engine.submit(engine.model.encode((Message("user", "x"),)), sampling(**hot))
    pieces = job.pieces()
    assert next(pieces).text
    job.end("cancelled")
    assert sum(1 for _ in pieces) < 190
    assert job.output.finish_reason == "cancelled"


def test_many_callers_get_their_own_answers_from_one_batch(engine: Engine) -> None:
    wanted = {question: ask(engine, question, **SEEDED)[1].output for question in QUESTIONS}
    found: list[tuple[str, Output]] = []

    def call(question: str) -> None:
        found.append((question, ask(engine, question, **SEEDED)[1].output))

    callers = [threading.Thread(target=call, args=(question,)) for question in QUESTIONS * 4]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(found) == 16
    assert all(output == wanted[question] for question, output in found)


def test_equal_logits_give_the_same_choice_on_both_devices(cuda: str) -> None:
    logits = torch.randn((64, 32_768), generator=torch.Generator().manual_seed(1)) * 4
    rows = [
        Row(sampling(temperature_ppm=700_000, top_p_ppm=900_000 + 50_000 * (n % 3), seed=n), [])
        for n in range(64)
    ]
    on_gpu, on_cpu = choose(rows, logits.to(cuda)), choose(rows, logits)
    assert [choice.token for choice in on_gpu] == [choice.token for choice in on_cpu]


def test_a_conversation_leaves_nothing_on_the_gpu(engine: Engine) -> None:
    ask(engine, QUESTIONS[0], max_tokens=64)
    before = allocated()
    for question in QUESTIONS:
        ask(engine, question, max_tokens=64, **SEEDED)
    assert allocated() == before


def test_a_model_that_is_let_go_gives_its_memory_back(cuda: str, weights: Weights) -> None:
    def use() -> int:
        engine = Engine(TransformerModel(weights, device=cuda))
        ask(engine, QUESTIONS[0])
        held = allocated()
        engine.close()
        return held

    size = len(weights.files["model.safetensors"])
    start = allocated()
    use()
    settled = allocated()
    assert settled < start + WORKSPACE
    held = use()
    assert held >= settled + size * 9 // 10
    assert allocated() == settled


@contextmanager
def full() -> Iterator[None]:
    """Take all memory that torch may have, down to its smallest block."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.0)
    ballast = []
    try:
        for size in (1 << 24, 3 << 20, 1 << 20, 1 << 16, 512):
            try:
                while True:
                    ballast.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                continue
        yield
    finally:
        ballast.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_full_gpu_is_a_refusal_and_the_engine_goes_on(engine: Engine) -> None:
    wanted = ask(engine, QUESTIONS[0])[1].output
    before = allocated()
    with full():
        pieces, job = ask(engine, QUESTIONS[0])
        assert (pieces, job.output) == ([], Output("error", (), full=True))
    assert allocated() == before
    assert ask(engine, QUESTIONS[0])[1].output == wanted


def test_a_model_that_does_not_fit_is_unsupported_and_leaves_nothing(cuda: str, weights: Weights) -> None:
    before = allocated()
    with full(), pytest.raises(Unsupported, match="does not fit into the memory of cuda"):
        TransformerModel(weights, device=cuda)
    assert allocated() == before


def test_a_model_in_half_precision_answers_and_repeats_itself(cuda: str, weights: Weights) -> None:
    config = weights.files["config.json"].replace(b'"float32"', b'"bfloat16"')
    half = Weights({**weights.files, "config.json": config}, weights.digest)
    first, second = (Engine(TransformerModel(half, device=cuda)) for _ in range(2))
    assert first.model.kernel["dtype"] == "bfloat16"
    for question in QUESTIONS:
        output = ask(first, question, max_tokens=64)[1].output
        assert output.ids
        assert output == ask(second, question, max_tokens=64)[1].output
    first.close()
    second.close()
