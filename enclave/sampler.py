"""The seeded choice of tokens, on whatever device the logits lie (``docs/formats/receipt.md``, "Sampler").

Noise is a function of (seed, position, token) in 64-bit integers, which every device computes alike; nothing
is drawn, nothing depends on the other rows of a batch, and a row costs a few passes over the vocabulary.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from enclave.chat import Sampling
from enclave.job import Choice

_LABEL = b"quotary-sampler/v2\n"
# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), as signed numbers.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
# Probabilities are added up as whole multiples of this, so that no order of additions changes a sum.
_UNIT = 2.0**-40
MOST_PPM = 10**12


@dataclass(slots=True)
class Row:
    """One answer of the batch. ids: its tokens so far; they count for the penalties and as position."""

    sampling: Sampling
    ids: list[int]

    @property
    def told(self) -> int | None:
        """The next token of the answer that this row follows, if it follows one."""
        follow = self.sampling.follow
        return follow[len(self.ids)] if len(self.ids) < len(follow) else None


def choose(rows: Sequence[Row], logits: "torch.Tensor") -> list[Choice]:
    """Choose the next token of each row from its line of ``logits`` (float32, one column for each token)."""
    changed = _penalised(rows, logits)
    best = torch.argmax(changed, dim=1)
    drawn = [place for place, row in enumerate(rows) if row.sampling.temperature_ppm]
    scores: dict[int, torch.Tensor] = {}
    if drawn:
        noisy = _noisy([rows[place] for place in drawn], changed[drawn])
        best[drawn] = torch.argmax(noisy, dim=1)
        scores = dict(zip(drawn, noisy, strict=True))
    ids: list[int] = best.tolist()
    gaps: dict[int, int] = {}
    for place, row in enumerate(rows):
        if row.told not in (None, ids[place]):
            gaps[place] = _gap(scores.get(place, changed[place]), ids[place], row.told)
            ids[place] = row.told
    likely = {place: row.sampling.top for place, row in enumerate(rows) if row.sampling.top is not None}
    if not likely:
        return [Choice(token, gap_ppm=gaps.get(place)) for place, token in enumerate(ids)]
    return [
        Choice(token, *_likelihoods(logits[place], token, likely[place]), gaps.get(place))
        if place in likely
        else Choice(token, gap_ppm=gaps.get(place))
        for place, token in enumerate(ids)
    ]


def gumbel(keys: Sequence[int], count: int, device: "torch.device | str" = "cpu") -> "torch.Tensor":
    """Give ``count`` Gumbel variates for each key: -ln(-ln u), u = (x + 0.5) / 2^53, x the top 53 bits of
    SplitMix64's words from that key on.
    """
    start = torch.tensor(keys, dtype=torch.int64, device=device).unsqueeze(1)
    word = start + torch.arange(1, count + 1, dtype=torch.int64, device=device) * _STEP
    word = (word ^ _shifted(word, 30)) * _FIRST
    word = (word ^ _shifted(word, 27)) * _SECOND
    word = word ^ _shifted(word, 31)
    uniform = _shifted(word, 11).double().add_(0.5).mul_(2.0**-53)
    return uniform.log_().neg_().log_().neg_()


def key(seed: int, position: int) -> int:
    """Give the start of the words for one position of one seed, as a signed number."""
    digest = hashlib.sha256(_LABEL + seed.to_bytes(8, "big", signed=True) + position.to_bytes(4, "big"))
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


def _shifted(word: "torch.Tensor", places: int) -> "torch.Tensor":
    """Shift right and fill with zeros, which signed numbers do not do by themselves."""
    return (word >> places) & ((1 << (64 - places)) - 1)


def _penalised(rows: Sequence[Row], logits: "torch.Tensor") -> "torch.Tensor":
    """Apply each row's own bias and penalties to a copy, where there are any."""
    touched = [place for place, row in enumerate(rows) if row.sampling.steers]
    if not touched:
        return logits
    changed = logits.clone()
    for place in touched:
        sampling, amounts = rows[place].sampling, Counter[int]()
        for token, ppm in sampling.bias:
            amounts[token] += ppm
        for token, times in Counter(rows[place].ids).items():
            amounts[token] -= times * sampling.frequency_ppm + sampling.presence_ppm
        index = torch.tensor(list(amounts), dtype=torch.int64, device=logits.device)
        change = torch.tensor([ppm / 1_000_000 for ppm in amounts.values()], device=logits.device)
        changed[place, index] += change.to(logits.dtype)
    return changed


def _gap(scores: "torch.Tensor", own: int, told: int) -> int:
    """How far the row's own choice is ahead of the token that it was told, in millionths, rounded up."""
    gap = float(scores[own].double() - scores[told].double())
    # A token that top_p cut away has no score at all.
    return MOST_PPM if math.isinf(gap) else min(math.ceil(gap * 1_000_000), MOST_PPM)


def _noisy(rows: Sequence[Row], logits: "torch.Tensor") -> "torch.Tensor":
    """Give the logits as they are compared: divided, with noise, without what is unlikely."""
    heat = [row.sampling.temperature_ppm / 1_000_000 for row in rows]
    scaled = logits.double() / torch.tensor(heat, dtype=torch.float64, device=logits.device).unsqueeze(1)
    noisy = gumbel(
        [key(row.sampling.seed, len(row.ids)) for row in rows], logits.shape[1], logits.device
    ).add_(scaled)
    cut = [place for place, row in enumerate(rows) if row.sampling.top_p_ppm < 1_000_000]
    if cut:
        limits = [rows[place].sampling.top_p_ppm for place in cut]
        noisy[cut] = noisy[cut].masked_fill_(_unlikely(scaled[cut], limits), -math.inf)
    return noisy


def _unlikely(scaled: "torch.Tensor", limits: Sequence[int]) -> "torch.Tensor":
    """Mark, in each row, the tokens before which ``limits`` (millionths) of the probability lies, from the
    likeliest on.
    """
    ordered, order = torch.sort(scaled, dim=1, descending=True, stable=True)
    weights = ((ordered - ordered[:, :1]).exp_() / _UNIT).long()
    total = weights.sum(1, keepdim=True)
    ppm = torch.tensor(limits, dtype=torch.int64, device=scaled.device).unsqueeze(1)
    # total * ppm / 10^6, rounded up, by parts that 64 bits hold.
    enough = total // 1_000_000 * ppm + (total % 1_000_000 * ppm + 999_999) // 1_000_000
    cut = torch.cumsum(weights, 1) - weights >= enough
    cut[:, 0] = False
    return torch.empty_like(cut).scatter_(1, order, cut)


def _likelihoods(
    logits: "torch.Tensor", token: int, count: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Give logarithms of the model's own probabilities: of the chosen token, and the likeliest ones."""
    found = torch.log_softmax(logits.double(), 0)
    values, ids = torch.topk(found, count)
    return float(found[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True))
