"""The seeded choice, beside a second implementation that follows the page of the format word by word."""

import hashlib
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave.chat import Sampling
from enclave.job import Choice
from enclave.sampler import MOST_PPM, Row, choose, gumbel, key

WORD = 1 << 64


def splitmix(state: int) -> int:
    """One word of SplitMix64, in unsigned arithmetic."""
    word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % WORD
    return word ^ (word >> 31)


def noise(seed: int, position: int, token: int) -> float:
    label = b"quotary-sampler/v2\n" + seed.to_bytes(8, "big", signed=True) + position.to_bytes(4, "big")
    start = int.from_bytes(hashlib.sha256(label).digest()[:8], "big")
    word = splitmix((start + (token + 1) * 0x9E3779B97F4A7C15) % WORD)
    return -math.log(-math.log(((word >> 11) + 0.5) / 2**53))


def plainly(logits: list[float], sampling: Sampling, ids: list[int]) -> int:
    scores = compared(logits, sampling, ids)
    return max(scores, key=lambda token: (scores[token], -token))


def compared(logits: list[float], sampling: Sampling, ids: list[int]) -> dict[int, float]:
    """What is compared of each token that is left to choose from."""
    amounts = Counter(dict(sampling.bias))
    for token, times in Counter(ids).items():
        amounts[token] -= times * sampling.frequency_ppm + sampling.presence_ppm
    changed = torch.tensor(logits)
    for token, ppm in amounts.items():
        changed[token] += torch.tensor(ppm / 1_000_000)
    if sampling.temperature_ppm == 0:
        return dict(enumerate(changed.tolist()))
    scaled = [value / (sampling.temperature_ppm / 1_000_000) for value in changed.tolist()]
    order = sorted(range(len(scaled)), key=lambda token: (-scaled[token], token))
    weights = [int(math.exp(scaled[token] - scaled[order[0]]) * 2**40) for token in order]
    enough = -(-sum(weights) * sampling.top_p_ppm // 1_000_000)
    kept = [token for rank, token in enumerate(order) if rank == 0 or sum(weights[:rank]) < enough]
    kept = order if sampling.top_p_ppm == 1_000_000 else kept
    return {token: scaled[token] + noise(sampling.seed, len(ids), token) for token in kept}


LOGITS = st.lists(st.integers(-80, 80).map(lambda n: n / 8), min_size=6, max_size=6)
PPM = st.sampled_from([0, 1, 300_000, 700_000, 999_999, 1_000_000])
SAMPLINGS = st.builds(
    Sampling,
    temperature_ppm=st.sampled_from([0, 10_000, 500_000, 1_000_000, 2_000_000]),
    top_p_ppm=PPM,
    max_tokens=st.just(9),
    seed=st.integers(-(2**53) + 1, 2**53 - 1),
    stop=st.just(()),
    frequency_ppm=st.sampled_from([-2_000_000, 0, 250_000]),
    presence_ppm=st.sampled_from([0, 1_500_000]),
    bias=st.sampled_from([(), ((2, 5_000_000),), ((0, -100_000_000), (5, 100_000_000))]),
)
ROWS = st.lists(st.tuples(LOGITS, SAMPLINGS, st.lists(st.integers(0, 5), max_size=4)), min_size=1, max_size=5)


@given(ROWS)
@settings(max_examples=150)
def test_each_row_is_chosen_as_the_format_page_says_whatever_the_others_are(
    rows: list[tuple[list[float], Sampling, list[int]]],
) -> None:
    logits = torch.tensor([row[0] for row in rows])
    found = choose([Row(sampling, ids) for _, sampling, ids in rows], logits)
    assert [choice.token for choice in found] == [plainly(*row) for row in rows]


@given(ROWS, st.integers(0, 5))
@settings(max_examples=150)
def test_who_follows_takes_what_it_is_told_and_says_how_far_its_own_choice_was_ahead(
    rows: list[tuple[list[float], Sampling, list[int]]], told: int
) -> None:
    logits = torch.tensor([row[0] for row in rows])
    follow = [replace(sampling, follow=(*ids, told)) for _, sampling, ids in rows]
    found = choose([Row(sampling, row[2]) for sampling, row in zip(follow, rows, strict=True)], logits)
    for choice, row in zip(found, rows, strict=True):
        scores, own = compared(*row), plainly(*row)
        assert choice.token == told
        if told == own:
            assert choice.gap_ppm is None
        elif told not in scores:
            assert choice.gap_ppm == MOST_PPM
        else:
            assert choice.gap_ppm == pytest.approx(1e6 * (scores[own] - scores[told]), rel=1e-9, abs=1.5)


def test_who_has_followed_to_the_end_chooses_by_itself() -> None:
    told = Sampling(0, 1_000_000, 9, 3, (), follow=(0,))
    assert choose([Row(told, [0])], torch.tensor([[0.0, 1.0]])) == [Choice(1)]
    asks = replace(told, top=1)
    (found,) = choose([Row(asks, [])], torch.tensor([[0.0, 1.0]]))
    assert (found.token, found.gap_ppm, [token for token, _ in found.top]) == (0, 1_000_000, [1])


def test_the_noise_is_what_the_format_page_says() -> None:
    assert gumbel([key(5, 3), key(-5, 3)], 4).tolist() == [
        [pytest.approx(noise(seed, 3, token), rel=1e-12) for token in range(4)] for seed in (5, -5)
    ]


def test_tokens_come_as_often_as_the_model_says() -> None:
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = torch.log(wanted).expand(2000, 4).contiguous()
    rows = [Row(Sampling(1_000_000, 1_000_000, 1, seed, ()), []) for seed in range(2000)]
    seen = torch.bincount(torch.tensor([choice.token for choice in choose(rows, logits)]), minlength=4)
    # Chi square with three degrees of freedom: above 16.3 once in a thousand, and the seeds are fixed.
    assert float((((seen - 2000 * wanted) ** 2) / (2000 * wanted)).sum()) < 16.3


def test_probabilities_are_the_models_own_before_temperature_penalties_and_bias() -> None:
    sampling = Sampling(2_000_000, 1_000_000, 1, 3, (), 1_000_000, 0, ((1, 9_000_000),), 2)
    (found,) = choose([Row(sampling, [0])], torch.log(torch.tensor([[0.5, 0.2, 0.3]])))
    assert found.token == 1
    assert found.logprob == pytest.approx(math.log(0.2), rel=1e-6)
    assert [token for token, _ in found.top] == [0, 2]
    assert found.top[0][1] == pytest.approx(math.log(0.5), rel=1e-6)


def test_probabilities_are_told_only_to_those_who_ask() -> None:
    asks = Sampling(0, 1_000_000, 1, 3, (), top=0)
    found = choose(
        [Row(Sampling(0, 1_000_000, 1, 3, ()), []), Row(asks, [])], torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    )
    assert found[0] == Choice(1)
    assert (found[1].token, found[1].top) == (0, ())
    assert found[1].logprob == pytest.approx(-math.log1p(math.exp(-1)))
