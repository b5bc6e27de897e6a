"""Make a small language model of our own, so that everything runs where no weights can be downloaded.

A byte-level BPE tokenizer and a Llama of about a million parameters, trained for half a minute on the text of
this project: its documents, its source, and questions made from both. It speaks like our documentation and
knows little; it exists so that a prompt meets a real ``transformers`` model behind a real boot check. The
seed is fixed, but nobody claims that training
reproduces: the manifest names what came out, and that is what is logged.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quotary.errors import CannotTell, Usage
from quotary.manifest import NAME, Manifest, ManifestFile

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT_LENGTH = 512
VOCABULARY = 2048
SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_WINDOW = 128
_BATCH = 16
_SEED = 7411


@dataclass(frozen=True, slots=True)
class MadeModel:
    """What came out: its folder, the weights digest (32 bytes), the number of parameters and the
    last training loss.
    """

    folder: Path
    digest: bytes
    parameters: int
    loss: float


def make_model(out: Path, *, source: Path, steps: int = 300) -> MadeModel:
    """Train on the text under ``source`` (a checkout of this project) for ``steps`` and write the
    model to ``out``.
    """
    if out.exists() and any(out.iterdir()):
        raise Usage(f"{out} is not empty")
    texts = list(_texts(source))
    if not texts:
        raise CannotTell(f"no *.md and no *.py under {source} to learn from")
    pairs = list(_pairs(source))
    tokenizer = _tokenizer(texts)
    with _one_thread():
        model, loss = _train(tokenizer, texts, pairs, steps)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    # One file says how a conversation becomes tokens, whatever the library's version prefers.
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    manifest = write_manifest(out)
    return MadeModel(out, manifest.digest, sum(p.numel() for p in model.parameters()), loss)


def write_manifest(folder: Path) -> Manifest:
    """Write ``MANIFEST`` over every file below ``folder``."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME):
        content = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = ManifestFile(
            hashlib.sha256(content).digest(), len(content)
        )
    manifest = Manifest(files)
    (folder / NAME).write_bytes(manifest.encode())
    return manifest


def _texts(source: Path) -> Iterator[str]:
    for path in _sources(source, "*.md") + _sources(source, "*.py"):
        yield path.read_text("utf-8", errors="replace")


def _sources(source: Path, pattern: str) -> list[Path]:
    found = (
        p
        for p in source.rglob(pattern)
        if not any(part.startswith(".") for part in p.relative_to(source).parts)
    )
    return sorted(p for p in found if p.is_file())


def _pairs(source: Path) -> Iterator[tuple[str, str]]:
    """Questions and answers: each document's headings, and what each public name in the source says
    of itself.
    """
    for path in _sources(source, "*.md"):
        for section in ("\n" + path.read_text("utf-8", errors="replace")).split("\n#")[1:]:
            heading, _, rest = section.partition("\n")
            answer = " ".join(rest.strip().split("\n\n")[0].split())
            if heading.strip("# ") and answer:
                yield f"What is {heading.strip('# ').lower()}?", answer[:400]
    for path in _sources(source, "*.py"):
        yield from _documented(path, source)


def _documented(path: Path, source: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_text("utf-8", errors="replace"))
    except SyntaxError:
        return
    nodes: list[tuple[str, ast.AST]] = [(path.relative_to(source).as_posix(), tree)]
    nodes += [
        (node.name, node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    for name, node in nodes:
        said = ast.get_docstring(node)  # type: ignore[arg-type]  # Module, ClassDef and FunctionDef are all allowed
        if said:
            yield f"What is {name}?", " ".join(said.split("\n\n")[0].split())[:400]


def _tokenizer(texts: list[str]) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train on one core: a second one saves seconds, and on a busy machine each step waits for both."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str], pairs: list[tuple[str, str]], steps: int
) -> tuple["LlamaForCausalLM", float]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(_SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids(SPECIAL[0]),
            pad_token_id=tokenizer.convert_tokens_to_ids(SPECIAL[0]),
        )
    )
    batches = _batches(tokenizer, texts, pairs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=max(steps, 1), pct_start=0.1)
    model.train()
    loss = float("nan")
    for _ in range(steps):
        ids = next(batches)
        result = model(input_ids=ids, labels=ids)
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        loss = float(result.loss.detach())
    return model.eval(), loss


def _batches(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str], pairs: list[tuple[str, str]]
) -> Iterator["torch.Tensor"]:
    """Windows for training: three quarters conversations packed one after another, one quarter plain text."""
    import torch

    def packed(pieces: list[str]) -> "torch.Tensor":
        return torch.tensor(
            [token for one in tokenizer.backend_tokenizer.encode_batch(pieces) for token in one.ids]
        )

    generator = torch.Generator().manual_seed(_SEED)
    order = torch.randperm(len(pairs), generator=generator).tolist()
    chat = packed([f"<|user|>{pairs[n][0]}<|end|><|assistant|>{pairs[n][1]}<|end|>" for n in order] or texts)
    prose = packed(texts)
    if min(len(chat), len(prose)) <= _WINDOW:
        raise CannotTell(
            f"{len(prose)} tokens of text and {len(chat)} of questions are too few to learn from"
        )
    while True:
        rows = []
        for row in range(_BATCH):
            stream = prose if row % 4 == 0 else chat
            start = int(torch.randint(len(stream) - _WINDOW, (1,), generator=generator))
            rows.append(stream[start : start + _WINDOW])
        yield torch.stack(rows)


def describe(made: MadeModel) -> str:
    """Say in one JSON line what was made."""
    return json.dumps(
        {
            "folder": str(made.folder),
            "weights_sha256": made.digest.hex(),
            "parameters": made.parameters,
            "loss": made.loss,
        }
    )
