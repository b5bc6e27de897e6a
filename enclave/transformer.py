"""A ``transformers`` model that was read into memory by ``enclave.weights``; importing this module imports
torch.

Nothing is looked up by name or loaded from a path: configuration, tokenizer, template and tensors come from
the bytes that were hashed, remote code does not exist, tensors are safetensors only; on a GPU lies a copy of
those bytes. Sampling is deterministic: greedy, or argmax over logits / T plus Gumbel noise from a PRF of
(seed, position) after a stable top-p cut, so that a second machine can repeat an answer.
"""

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from enclave.chat import APIError, Message, Sampling
from enclave.engine import MemoryFull, Output
from enclave.text import TextAssembler
from enclave.weights import Weights
from quotary.errors import Malformed, Unsupported

_SAMPLER = b"quotary-sampler/v1\n"
_TEMPLATE = "chat_template.jinja"


class TransformerModel:
    """One loaded model.

    kernel:  how it computes, as the receipt states it; the number format is the configuration's
    device:  ``cpu`` or ``cuda``, which is the first GPU
    threads: of the CPU, or torch decides

    Raises ``Malformed`` where the files are no model, ``Unsupported`` where the device is absent or small.
    """

    def __init__(self, weights: Weights, *, device: str = "cpu", threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = _prepared(device)
        files = weights.files
        try:
            self._model = _empty(files, self._device)
            _fill(self._model, files)
        except torch.OutOfMemoryError as error:
            raise Unsupported(f"the model does not fit into the memory of {device}") from error
        self._tokenizer = _tokenizer(files)
        self._special = tuple(self._tokenizer.all_special_tokens) + tuple(
            self._tokenizer.added_tokens_encoder
        )
        self._lock = threading.Lock()
        self.context_length = int(self._model.config.max_position_embeddings)
        self.kernel: Mapping[str, int | str] = {
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "kernel": "sdpa",
            "batching": "none",
        } | _described(self._device)

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        for message in messages:
            if any(token in message.content for token in self._special):
                raise APIError(
                    400, "invalid_value", "a message holds a control token of this model", param="messages"
                )
        turns = [{"role": message.role, "content": message.content} for message in messages]
        with self._lock:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            return tuple(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def generate(
        self,
        prompt: tuple[int, ...],
        sampling: Sampling,
        emit: Callable[[str], None],
        ended: Callable[[], bool],
    ) -> Output:
        stream = _Stream(TextAssembler(self._decode, sampling.stop), emit, ended, self._end_ids())
        config = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(self._end_ids()),
            pad_token_id=min(self._end_ids()),
        )
        processors = [] if sampling.temperature_ppm == 0 else [_Sampler(sampling, len(prompt))]
        try:
            with torch.inference_mode():
                ids = torch.tensor([prompt], device=self._device)
                self._model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config,
                    logits_processor=processors, stopping_criteria=[stream],
                )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise MemoryFull from error
        return stream.output()

    def _decode(self, ids: object) -> str:
        with self._lock:
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _end_ids(self) -> frozenset[int]:
        found = self._model.config.eos_token_id
        return frozenset(found if isinstance(found, list) else [found])


class _Stream:
    """A stopping criterion that sees each token as it is chosen, sends its text on and says when to stop.

    (A streamer would hear of a token only after the criteria have run, one token too late for a stop string.)
    """

    def __init__(
        self,
        text: TextAssembler,
        emit: Callable[[str], None],
        ended: Callable[[], bool],
        end_ids: frozenset[int],
    ) -> None:
        self._text, self._emit, self._ended, self._end_ids = text, emit, ended, end_ids
        self._ids: list[int] = []
        self._stopped = False

    def __call__(self, input_ids: "torch.Tensor", scores: object, **_: object) -> "torch.Tensor":
        if not self._stopped:
            self._take(int(input_ids[0, -1]))
        done = self._stopped or self._ended()
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)

    def output(self) -> Output:
        self._send(self._text.finish())
        return Output("stop" if self._stopped else "length", tuple(self._ids))

    def _take(self, token: int) -> None:
        self._ids.append(token)
        if token in self._end_ids:
            self._stopped = True
        else:
            self._send(self._text.feed(token))
            self._stopped = self._text.stopped

    def _send(self, piece: str) -> None:
        if piece:
            self._emit(piece)


class _Sampler:
    """A logits processor that leaves one token: the seeded choice (``docs/formats/receipt.md``,
    "Sampler").

    It chooses on the CPU: there equal logits give equal choices, and a GPU's running sum is not repeatable.
    """

    def __init__(self, sampling: Sampling, prompt_length: int) -> None:
        self._sampling, self._prompt_length = sampling, prompt_length

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        position = input_ids.shape[1] - self._prompt_length
        logits = scores[0].cpu().double() / (self._sampling.temperature_ppm / 1_000_000)
        ordered, order = torch.sort(logits, descending=True, stable=True)
        probabilities = torch.softmax(ordered, 0)
        before = torch.cumsum(probabilities, 0) - probabilities
        kept = before < max(self._sampling.top_p_ppm / 1_000_000, 1e-9)
        kept[0] = True
        noise = gumbel(self._sampling.seed, position, scores.shape[1])
        choice = torch.argmax(torch.where(kept, ordered + noise[order], -math.inf))
        chosen = torch.full_like(scores, -math.inf)
        chosen[0, int(order[choice])] = 0
        return chosen


def gumbel(seed: int, position: int, count: int) -> "torch.Tensor":
    """``count`` Gumbel variates: -ln(-ln u), u = (x + 0.5) / 2^53 with x the top 53 bits of u64be
    words of SHAKE-256.
    """
    stream = hashlib.shake_256(_SAMPLER + seed.to_bytes(8, "big", signed=True) + position.to_bytes(4, "big"))
    words = (
        torch.frombuffer(bytearray(stream.digest(8 * count)), dtype=torch.uint8)
        .reshape(count, 8)
        .to(torch.int64)
    )
    high = sum(
        (words[:, place] << (8 * (6 - place)) for place in range(7)), torch.zeros(count, dtype=torch.int64)
    )
    value = (high >> 3).double()
    return -torch.log(-torch.log((value + 0.5) / 2**53))


def _prepared(device: str) -> torch.device:
    """Choose repeatable algorithms, before anything is computed."""
    if device != "cpu":
        if not torch.cuda.is_available():
            raise Unsupported(f"{device}: this build of torch finds no GPU", next_command="--device cpu")
        # Written, never read: without it the GPU's matrix library may choose another order of additions.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        # Uninitialised memory is never read here, and filling it costs a kernel for each tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    return torch.device(device)


def _described(device: torch.device) -> dict[str, str]:
    """Name the device for the receipt; equal answers are to be expected of equal GPUs only."""
    if device.type == "cpu":
        return {"device": "cpu"}
    return {"device": device.type, "gpu": torch.cuda.get_device_name(device)}


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


def _tokenizer(files: Mapping[str, bytes]) -> PreTrainedTokenizerFast:
    found = _json(files, "tokenizer_config.json")
    if _TEMPLATE not in files or "tokenizer.json" not in files:
        raise Malformed(f"the model has no tokenizer.json or no {_TEMPLATE}")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_buffer(files["tokenizer.json"]),
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
