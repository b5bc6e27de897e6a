"""One batch that answers join and leave between two tokens, over a cache of fixed size.

The cache is made once: a line of the model's whole context for each answer, and one more in which a prompt
is read. A prompt is read alone, in pieces of fixed length, so nothing of it depends on other answers; then
its line is moved to the end of the batch. When an answer leaves, the last one takes its line. Nothing is ever
shared between lines: no prefix of one prompt makes another one faster.

A step computes at least four lines: for fewer, matrix libraries take other kernels with other roundings.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from enclave.chat import Sampling
from enclave.job import Choice
from enclave.sampler import Row, choose

PIECE = 256
LEAST = 4

# Keys are looked at in whole multiples of this.
_ALIGNED = 64


class Rows:
    """The answers in the making, in the order in which they joined, but for those that took another's line.

    model: a decoder of ``transformers`` whose layers all attend to the whole context
    count: answers at once, 4 or more; length: tokens of prompt and answer together
    """

    def __init__(self, model: Any, *, count: int, length: int) -> None:
        assert count >= LEAST
        self.count, self.length = count, length
        self._model = model
        self._place = _Place()
        self._layers = [_Layer(self._place, count + 1, length, *shown) for shown in _shown(model)]
        self._cache = Cache(layers=self._layers)
        self._rows: list[Row] = []
        self._lengths: list[int] = []
        self._read: Any = None

    def read(self, prompt: Sequence[int], at: int) -> int:
        """Read the next piece of a prompt, from token ``at`` on; returns where the one after it begins.

        One prompt is read at a time, from 0 to its end; then it has to join, or another begins at 0.
        """
        end = min(len(prompt), at + PIECE)
        device = self._model.device
        self._place.reading(self.count, at, end)
        # A prompt's first piece is causal by itself; a later one sees all that stands before it.
        mask = None if at == 0 else _causal(at, end, self._model.dtype, device)
        ids = torch.tensor([prompt[at:end]], device=device)
        self._read = self._forward(ids, torch.arange(at, end, device=device).unsqueeze(0), mask)
        return end

    def join(self, prompt_length: int, sampling: Sampling) -> Choice:
        """Let the prompt that was read become the last row; returns its first token."""
        assert len(self._rows) < self.count
        row = Row(sampling, [])
        (choice,) = choose([row], self._read)
        self._read = None
        for layer in self._layers:
            layer.move(self.count, len(self._rows), prompt_length)
        row.ids.append(choice.token)
        self._rows.append(row)
        self._lengths.append(prompt_length)
        return choice

    def step(self) -> list[Choice]:
        """Compute the next token of every row."""
        rows, lengths = self._rows, self._lengths
        device = self._model.device
        idle = max(LEAST - len(rows), 0)
        positions = torch.tensor([*lengths, *[0] * idle], device=device)
        ids = torch.tensor([*(row.ids[-1] for row in rows), *[0] * idle], device=device)
        seen = min(-(-(max(lengths) + 1) // _ALIGNED) * _ALIGNED, self.length)
        self._place.stepping(positions, seen)
        mask = _until(positions, seen, self._model.dtype)
        logits = self._forward(ids.unsqueeze(1), positions.unsqueeze(1), mask)
        choices = choose(rows, logits[: len(rows)])
        for place, choice in enumerate(choices):
            rows[place].ids.append(choice.token)
            lengths[place] += 1
        return choices

    def leave(self, place: int) -> None:
        """End the row at this place; the last one takes it."""
        last = len(self._rows) - 1
        if place != last:
            for layer in self._layers:
                layer.move(last, place, self._lengths[last])
        self._rows[place], self._lengths[place] = self._rows[last], self._lengths[last]
        del self._rows[last], self._lengths[last]

    def _forward(self, ids: Any, positions: Any, mask: Any) -> "torch.Tensor":
        with torch.inference_mode():
            found = self._model(
                input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self._cache,
                use_cache=True, logits_to_keep=1,
            )  # fmt: skip
            logits: torch.Tensor = found.logits[:, -1].float()
        self._place.where = None
        return logits


def token_bytes(model: Any) -> dict["torch.device", int]:
    """Give the memory that one token takes in the caches of all layers, by the device that they are on."""
    found: dict[torch.device, int] = {}
    for one in (one for shown in _shown(model) for one in shown):
        found[one.device] = found.get(one.device, 0) + one.numel() * one.element_size()
    return found


def _shown(model: Any) -> list[tuple[Any, Any]]:
    """Keys and values of one token in each layer, for their shapes."""
    cache = DynamicCache()
    with torch.inference_mode():
        model(
            input_ids=torch.zeros((1, 1), dtype=torch.int64, device=model.device),
            past_key_values=cache,
            use_cache=True,
        )
    return [(layer.keys, layer.values) for layer in cache.layers]


class _Place:
    """Where the layers put what is computed now, and how much of their lines is looked at."""

    def __init__(self) -> None:
        self.lines: Any = slice(0)
        self.where: Any = None
        self.seen = 0
        self.step = False

    def reading(self, line: int, at: int, end: int) -> None:
        self.lines, self.where, self.seen, self.step = slice(line, line + 1), slice(at, end), end, False

    def stepping(self, positions: "torch.Tensor", seen: int) -> None:
        self.lines, self.where, self.seen, self.step = slice(len(positions)), positions, seen, True


class _Layer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer: lines of the batch, each as long as the context."""

    def __init__(self, place: _Place, lines: int, length: int, keys: Any, values: Any) -> None:
        super().__init__()
        self._place = place
        self.keys, self.values = (
            one.new_zeros((lines, one.shape[1], length, one.shape[3])) for one in (keys, values)
        )
        self.is_initialized = True

    def move(self, line: int, to: int, length: int) -> None:
        for held in (self.keys, self.values):
            held[to, :, :length] = held[line, :, :length]

    def update(self, keys: Any, values: Any, *_: object, **__: object) -> tuple[Any, Any]:
        place, seen = self._place, self._place.seen
        for held, new in ((self.keys, keys), (self.values, values)):
            if place.step:
                where = place.where.to(new.device)
                held[torch.arange(len(new), device=new.device), :, where] = new[:, :, 0]
            else:
                held[place.lines, :, place.where] = new
        return self.keys[place.lines, :, :seen], self.values[place.lines, :, :seen]

    def lazy_initialization(self, keys: Any, values: Any) -> None:
        raise AssertionError("the lines were allocated when the batch was made")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._place.seen, 0

    def get_seq_length(self) -> int:
        return self._place.seen

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


def _causal(at: int, end: int, dtype: Any, device: Any) -> Any:
    """A piece's own mask: token ``n`` of the prompt sees those up to ``n``."""
    keys = torch.arange(end, device=device)
    return _mask(keys[None, None, None, :] <= keys[at:, None], dtype)


def _until(positions: Any, seen: int, dtype: Any) -> Any:
    """A step's mask: each line sees what stands in it up to its own position."""
    keys = torch.arange(seen, device=positions.device)
    return _mask(keys <= positions[:, None, None, None], dtype)


def _mask(visible: Any, dtype: Any) -> Any:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, float("-inf")
    )
