"""A ``transformers`` model that was read into memory by ``enclave.weights``; importing this module imports
torch.

Nothing is looked up by name or loaded from a path: configuration, tokenizer, template and tensors come from
the bytes that were hashed, remote code does not exist, tensors are safetensors only; on a GPU lies a copy of
those bytes. ``enclave.rows`` makes many answers at once, ``enclave.sampler`` chooses their tokens.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from enclave import rows
from enclave.chat import APIError, Message, Sampling
from enclave.job import Choice, MemoryFull
from enclave.rows import Rows
from enclave.spread import needed, spread
from enclave.weights import Weights
from quotary.errors import Malformed, Unsupported

ROWS = 32
CACHE_BYTES = 2 << 30

_TEMPLATE = "chat_template.jinja"
_ATTENTION = frozenset({"full_attention", "sliding_attention"})


class TransformerModel:
    """One loaded model.

    kernel:  how it computes, as the receipt states it; the number format is the configuration's
    rows:    answers that are made at once
    end_ids: tokens that end an answer; vocabulary: how many tokens there are

    device:  ``cpu`` or ``cuda``: as many GPUs as the model takes
    threads: of the CPU, or torch decides
    cache_bytes: what all caches take; absent: 2 GiB, on a GPU also most of what the model leaves free

    Raises ``Malformed`` where the files are no model, ``Unsupported`` where the device is absent or small.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        threads: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        files = weights.files
        devices = _prepared(device, sum(map(len, files.values())))
        self._tokenizer = _tokenizer(files)
        try:
            # Spread over several devices, it is filled on the CPU first.
            self._model = _empty(files, devices[0] if len(devices) == 1 else torch.device("cpu"))
            _fill(self._model, files)
            split = () if len(devices) == 1 else spread(self._model, devices)
            self.context_length = _context_length(self._model)
            self.rows = _row_count(rows.token_bytes(self._model), self.context_length, cache_bytes)
            self._rows = Rows(self._model, count=self.rows, length=self.context_length)
        except torch.OutOfMemoryError as error:
            raise Unsupported(f"the model does not fit into the memory of {device}") from error
        self._special = tuple(self._tokenizer.all_special_tokens) + tuple(
            self._tokenizer.added_tokens_encoder
        )
        self._backend = self._tokenizer.backend_tokenizer
        self.end_ids = _end_ids(self._model)
        self.vocabulary = int(self._model.config.vocab_size)
        self.kernel: Mapping[str, int | str] = {
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "kernel": "sdpa",
            "batching": f"rows-{rows.LEAST}-{self.rows}",
        } | _described(devices, split)

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        for message in messages:
            self._require_plain(message.content, "messages")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_text(self, text: str) -> tuple[int, ...]:
        self._require_plain(text, "prompt")
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=True))

    def read(self, prompt: Sequence[int], at: int) -> int:
        with _full_memory():
            return self._rows.read(prompt, at)

    def join(self, prompt_length: int, sampling: Sampling) -> Choice:
        with _full_memory():
            return self._rows.join(prompt_length, sampling)

    def step(self) -> list[Choice]:
        with _full_memory():
            return self._rows.step()

    def leave(self, place: int) -> None:
        self._rows.leave(place)

    def _require_plain(self, text: str, param: str) -> None:
        if any(token in text for token in self._special):
            raise APIError(400, "invalid_value", "the text holds a control token of this model", param=param)


@contextmanager
def _full_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryFull from error


def _prepared(device: str, size: int) -> list[torch.device]:
    """Choose repeatable algorithms, before anything is computed, and devices for ``size`` bytes."""
    if device != "cpu":
        if not torch.cuda.is_available():
            raise Unsupported(f"{device}: this build of torch finds no GPU", next_command="--device cpu")
        # Written, never read: without it the GPU's matrix library may choose another order of additions.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        # Uninitialised memory is never read here, and filling it costs a kernel for each tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    if device == "cpu":
        return [torch.device("cpu")]
    free = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
    return [torch.device(device, number) for number in range(needed(size, free))]


def _described(devices: Sequence[torch.device], split: Sequence[int]) -> dict[str, str]:
    """Name the devices for the receipt, and how many layers each has where there are several.

    Equal answers are to be expected of equal GPUs and an equal split only.
    """
    if devices[0].type == "cpu":
        return {"device": "cpu"}
    names = sorted({torch.cuda.get_device_name(device) for device in devices})
    layers = {"layers": "+".join(map(str, split))} if split else {}
    return {"device": devices[0].type, "gpu": ", ".join(names)} | layers


def _empty(files: Mapping[str, bytes], device: torch.device) -> Any:
    config = _json(files, "config.json")
    if "auto_map" in config:
        raise Malformed("the model's configuration asks for code of its own")
    kind = config.pop("model_type", None)
    with device:
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **config), attn_implementation="sdpa", trust_remote_code=False
        )


def _fill(model: Any, files: Mapping[str, bytes]) -> None:
    state: dict[str, torch.Tensor] = {}
    for name in sorted(files):
        if name.endswith(".safetensors"):
            state |= safetensors.torch.load(files[name])
    result = model.load_state_dict(state, strict=False)
    model.tie_weights()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if result.unexpected_keys or set(result.missing_keys) - tied or not state:
        raise Malformed("the tensors are not exactly those that the model's configuration names")
    model.eval().requires_grad_(False)


def _context_length(model: Any) -> int:
    """Give the tokens over which every layer sees all of the conversation."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    if kinds - _ATTENTION or getattr(model, "_is_stateful", False):
        raise Unsupported("this model has layers that keep something else than keys and values")
    window = getattr(config, "sliding_window", None)
    return min(int(config.max_position_embeddings), int(window or config.max_position_embeddings))


def _row_count(token_bytes: Mapping[torch.device, int], length: int, cache_bytes: int | None) -> int:
    """Say for how many answers of ``length`` tokens there is room, one line beside them for a prompt."""
    if cache_bytes is not None:
        rooms = [(cache_bytes, sum(token_bytes.values()) * length)]
    else:
        rooms = [(_room(device), each * length) for device, each in token_bytes.items()]
    room, line = min(rooms, key=lambda one: one[0] // one[1])
    if room // line - 1 < rows.LEAST:
        wanted = (rows.LEAST + 1) * line >> 20
        raise Unsupported(f"the caches of {rows.LEAST} answers take {wanted} MiB of {room >> 20}")
    return min(ROWS, room // line - 1)


def _room(device: torch.device) -> int:
    if device.type == "cpu":
        return CACHE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(CACHE_BYTES, int(free) * 3 // 4)


def _end_ids(model: Any) -> frozenset[int]:
    found = model.config.eos_token_id
    return frozenset(found if isinstance(found, list) else [found])


def _tokenizer(files: Mapping[str, bytes]) -> PreTrainedTokenizerFast:
    found = _json(files, "tokenizer_config.json")
    if _TEMPLATE not in files or "tokenizer.json" not in files:
        raise Malformed(f"the model has no tokenizer.json or no {_TEMPLATE}")
    core = Tokenizer.from_buffer(files["tokenizer.json"])
    # What a tokenizer may have been saved with; a prompt is neither cut nor filled up.
    core.no_truncation()
    core.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=found.get("eos_token"),
        pad_token=found.get("pad_token"),
        chat_template=files[_TEMPLATE].decode("utf-8"),
        clean_up_tokenization_spaces=False,
    )


def _json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(files[name])
    except (KeyError, ValueError) as error:
        raise Malformed(f"the model has no readable {name}") from error
    if not isinstance(found, dict):
        raise Malformed(f"the model's {name} is not an object")
    return found
