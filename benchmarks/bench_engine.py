"""What our engine costs beside bare ``transformers``: one random model, the same prompts, one process.

python benchmarks/bench_engine.py [--size tiny|small|1b] [--device cpu|cuda] [--tokens 64] [--rounds 3]
                                  [--callers 32] [--threads 1] [--json FILE]

The model is made on the spot (a Llama with random weights in its real size), hashed and loaded as an enclave
does. Bare is ``generate`` on the very same tensors, once as torch comes and once with repeatable algorithms;
for many callers, one after another, and as one padded batch of equal prompts that all begin and end together,
which no server can have. On a machine that does other work as well, read the ratios of processor time.
"""

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from builder.model import CHAT_TEMPLATE, SPECIAL, write_manifest
from enclave.chat import Message, Sampling
from enclave.engine import Engine
from enclave.transformer import TransformerModel
from enclave.weights import read_weights

SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 4, "vocab_size": 4096},
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
              "num_key_value_heads": 4, "vocab_size": 8192},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 32768},
}  # fmt: skip
CONTEXT = 2048
PROMPT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Run:
    """One run. seconds of wall clock and of all our threads' processor time; first: to the first token."""

    seconds: float
    processor: float
    first: float
    tokens: int


def make(folder: Path, size: str, device: str) -> None:
    """Write a random model whose tokens are whole words, and which never ends an answer by itself."""
    disable_progress_bar()
    torch.manual_seed(11)
    config = LlamaConfig(
        **SIZES[size], max_position_embeddings=CONTEXT, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16 if device == "cuda" else torch.float32)
    # The end token's logit is exactly 0, and among thousands of random ones some are larger.
    model.lm_head.weight.data[0] = 0
    model.save_pretrained(folder, safe_serialization=True)
    words = (*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), config.vocab_size)))
    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[-1]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(list(SPECIAL))
    core.save(str(folder / "tokenizer.json"))
    ends = {"eos_token": SPECIAL[0], "pad_token": SPECIAL[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(ends))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_manifest(folder)


def prompts(model: TransformerModel, count: int) -> list[tuple[int, ...]]:
    """Conversations of equal length, no two with a common beginning."""
    generator = random.Random(3)
    texts = (
        " ".join(f"w{generator.randrange(100, 4000)}" for _ in range(PROMPT_TOKENS)) for _ in range(count)
    )
    return [model.encode((Message("user", text),)) for text in texts]


def timed(work: Callable[[], tuple[float, int]]) -> Run:
    """Measure ``work``, which gives the seconds to its first token and the number of tokens."""
    started, processor = time.perf_counter(), time.process_time()
    first, tokens = work()
    return Run(time.perf_counter() - started, time.process_time() - processor, first, tokens)


def ours(engine: Engine, prompt: tuple[int, ...], sampling: Sampling) -> tuple[float, int]:
    """One answer as a connection's thread reads it."""
    started = time.perf_counter()
    job = engine.submit(prompt, sampling)
    pieces = job.pieces()
    next(pieces)
    first = time.perf_counter() - started
    for _ in pieces:
        pass
    return first, len(job.output.ids)


def together(engine: Engine, asked: list[tuple[int, ...]], sampling: Sampling) -> tuple[float, int]:
    """As many threads as prompts; the first token of the one that waits longest."""
    found: list[tuple[float, int]] = []
    threads = [
        threading.Thread(target=lambda each=each: found.append(ours(engine, each, sampling)))
        for each in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(first for first, _ in found), sum(tokens for _, tokens in found)


def bare(model: Any, asked: list[tuple[int, ...]], tokens: int, *, repeatable: bool) -> tuple[float, int]:
    """Generate for all prompts as one batch. The first token's time is that of a run of one token."""
    torch.use_deterministic_algorithms(repeatable)
    device = next(model.parameters()).device
    first = 0.0
    for length in (1, tokens):
        started = time.perf_counter()
        ids = torch.tensor(asked, device=device)
        config = GenerationConfig(max_new_tokens=length, do_sample=False, eos_token_id=0, pad_token_id=0)
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
        made.cpu()
        first = first or time.perf_counter() - started
    torch.use_deterministic_algorithms(True)
    return first, (made.shape[1] - len(asked[0])) * len(asked)


def whole(run: Run) -> Run:
    """Take the run of one token, which only measured the first one, out of a bare run."""
    return Run(run.seconds - run.first, run.processor * (1 - run.first / run.seconds), run.first, run.tokens)


def measure(engine: Engine, model: Any, options: argparse.Namespace) -> dict[str, list[Run]]:
    """Run everything in turn, ``rounds`` times after one to warm up."""
    one, *_ = asked = prompts(engine.model, options.callers)  # type: ignore[arg-type]
    greedy = Sampling(0, 1_000_000, options.tokens, 1, ())
    seeded = Sampling(1_000_000, 1_000_000, options.tokens, 1, ())
    n = options.tokens
    many = f"{options.callers} callers"

    def in_turn() -> tuple[float, int]:
        found = [bare(model, [each], n, repeatable=False) for each in asked]
        return sum(first for first, _ in found), sum(tokens for _, tokens in found)

    cases: dict[str, Callable[[], Run]] = {
        "bare, as torch comes": lambda: whole(timed(lambda: bare(model, [one], n, repeatable=False))),
        "bare, repeatable": lambda: whole(timed(lambda: bare(model, [one], n, repeatable=True))),
        "ours": lambda: timed(lambda: ours(engine, one, greedy)),
        "ours, seeded": lambda: timed(lambda: ours(engine, one, seeded)),
        f"bare, {many} in turn": lambda: whole(timed(in_turn)),
        f"ours, {many}": lambda: timed(lambda: together(engine, asked, greedy)),
        f"ours, {many}, seeded": lambda: timed(lambda: together(engine, asked, seeded)),
        f"bare, {many} as one batch": lambda: whole(timed(lambda: bare(model, asked, n, repeatable=False))),
    }
    found: dict[str, list[Run]] = {name: [] for name in cases}
    for turn in range(options.rounds + 1):
        for name, case in cases.items():
            run = case()
            if turn:
                found[name].append(run)
    return found


def summary(found: dict[str, list[Run]]) -> list[dict[str, float | str]]:
    """Medians, each beside the first case."""
    rows = []
    for name, runs in found.items():
        per_token = statistics.median(run.seconds / run.tokens for run in runs)
        rows.append({
            "case": name,
            "ms_per_token": per_token * 1e3,
            "tokens_per_second": 1 / per_token,
            "first_token_ms": statistics.median(run.first for run in runs) * 1e3,
            "processor_ms_per_token": statistics.median(run.processor / run.tokens for run in runs) * 1e3,
        })  # fmt: skip
    for column in ("ms_per_token", "first_token_ms", "processor_ms_per_token"):
        base = float(rows[0][column])
        for row in rows:
            row[column.removesuffix("_ms").replace("ms_", "") + "_ratio"] = float(row[column]) / base
    return rows


def same_tokens(engine: Engine, model: Any, tokens: int) -> bool:
    """Whether ours and bare gave the same tokens."""
    prompt = prompts(engine.model, 1)[0]  # type: ignore[arg-type]
    job = engine.submit(prompt, Sampling(0, 1_000_000, tokens, 1, ()))
    for _ in job.pieces():
        pass
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=0, pad_token_id=0)
    ids = torch.tensor([prompt], device=next(model.parameters()).device)
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(made[0, len(prompt) :].tolist()) == job.output.ids


def allocated(device: str) -> int:
    """MiB that torch holds on the GPU after a collection; 0 on the CPU."""
    gc.collect()
    return torch.cuda.memory_allocated() >> 20 if device == "cuda" else 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make, load, measure; the report."""
    before = allocated(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.size, options.device)
        digest = write_manifest(folder).digest
        started = time.perf_counter()
        weights = read_weights(folder, digest)
        read = time.perf_counter()
    loaded = TransformerModel(weights, device=options.device, threads=options.threads)
    copied = time.perf_counter()
    size = sum(map(len, weights.files.values()))
    del weights
    engine = Engine(loaded)
    model = loaded._model
    report: dict[str, Any] = {
        "torch": torch.__version__, "size": options.size, "kernel": dict(loaded.kernel),
        "parameters": sum(each.numel() for each in model.parameters()),
        "bytes": size, "read_and_hashed_seconds": read - started, "copied_seconds": copied - read,
        "prompt_tokens": len(prompts(loaded, 1)[0]), "tokens": options.tokens, "rounds": options.rounds,
        "load": os.getloadavg()[0], "same_tokens": same_tokens(engine, model, options.tokens),
        "mib_before": before, "mib_loaded": allocated(options.device),
    }  # fmt: skip
    found = measure(engine, model, options)
    report |= {"mib_answered": allocated(options.device), "summary": summary(found)}
    report["runs"] = {name: [asdict(each) for each in runs] for name, runs in found.items()}
    engine.close()
    del engine, model, loaded
    return report | {"mib_after": allocated(options.device)}


def main() -> None:
    """Print a table, and the whole report as JSON where a file is named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = run(options)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    print(json.dumps({name: value for name, value in report.items() if name not in ("summary", "runs")}))
    names = tuple(name for name in report["summary"][0] if name != "case")
    print(" " * 28, *(f"{name:>22}" for name in names))
    for row in report["summary"]:
        print(f"{row['case']:28}", *(f"{row[name]:22.3f}" for name in names))


if __name__ == "__main__":
    main()
