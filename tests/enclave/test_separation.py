"""What one client, key or purpose has is of no use to another: computed prompts, sizes on the wire, derived keys."""

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from quotary.client.answers import EVENT_LENGTH, TEXT_LENGTH
from tests.conftest import ROOT
from tests.enclave.api_site import Site, body
from tests.enclave.machine import SERVICE

PACKAGES = ("quotary", "registry", "builder", "enclave", "simulator", "verifier")


@contextmanager
def embedded() -> Iterator[list[int]]:
    """Count the tokens that any model of this process looks up in an embedding: each one that it computes on."""
    counts: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Embedding):
            counts.append(inputs[0].numel())

    hook = register_module_forward_pre_hook(count)
    try:
        yield counts
    finally:
        hook.remove()


def test_c16_a_prompt_that_somebody_else_sent_before_is_computed_whole_again(site: Site) -> None:
    """Counted, not timed: no prefix is shared, so no time to the first token tells what others have asked."""
    long = [{"role": "user", "content": "one two three four " * 10}]
    asked = body(messages=long, max_tokens=1)
    computed = []
    for _ in range(3):
        with embedded() as counts:
            _, answer = site.ask(asked)
        computed.append(sum(counts))
    prompt = json.loads(answer)["usage"]["prompt_tokens"]
    assert prompt > 40
    assert computed == [computed[0]] * 3
    assert computed[0] >= prompt


def frame_lengths(site: Site, prompt: str, pad: int) -> list[int]:
    """What a proxy sees of a streamed answer: the length of each frame."""
    asked = body(
        messages=[{"role": "user", "content": prompt}], stream=True, max_tokens=24, temperature=1, seed=7
    )
    wire, _ = site.seal(asked, site.head(pad=pad, want=()))
    stream = site.post(wire).data[33:]
    found = []
    while stream:
        length = int.from_bytes(stream[:4], "big")
        found.append(length)
        stream = stream[4 + length :]
    return found


@pytest.mark.parametrize("pad", [1024, 4096])
def test_c15_every_piece_of_every_answer_has_one_length_on_the_wire(site: Site, pad: int) -> None:
    topics = ("What is a log?", "My chest hurts and I am afraid.", "Write a poem about rain, please.")
    answers = [frame_lengths(site, topic, pad) for topic in topics]
    assert {4 + length for lengths in answers for length in lengths} == {pad}
    assert all(len(lengths) > 2 for lengths in answers)


def test_c15_events_are_as_long_as_the_client_reckons_when_it_chooses_a_bucket(site: Site) -> None:
    _, answer = site.ask(body(stream=True, max_tokens=24, temperature=1, seed=7))
    events = answer.split(b"\n\n")[1:-3]
    assert len(events) > 2
    for event in events:
        choice = json.loads(event.removeprefix(b"data: "))["choices"][0]
        text = json.dumps(choice["delta"]["content"])[1:-1]
        assert len(event + b"\n\n") == EVENT_LENGTH + len(SERVICE) + len(text)
    assert TEXT_LENGTH == 24


def test_p3_a_stream_of_64_tokens_has_little_more_bytes_than_in_clear(site: Site) -> None:
    asked = body(stream=True, max_tokens=64, temperature=1, seed=7, logit_bias={"2": -100})
    wire, opener = site.seal(asked, site.head(want=()))
    stream = site.post(wire).data
    plain = opener.feed(stream)
    opener.close()
    assert plain.count(b"data: ") > 40
    assert len(stream) <= 1.35 * len(plain)


def test_c22_every_context_that_keys_and_digests_are_made_under_is_of_one_purpose() -> None:
    """No context begins with another one, and none is written in two modules."""
    found: dict[bytes, set[Path]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                value = node.value if isinstance(node, ast.Constant) else None
                if isinstance(value, bytes) and value.startswith(b"quotary-"):
                    found.setdefault(value, set()).add(path.relative_to(ROOT))
    # The hash of a response is fed piece by piece under the receipt's own context and label.
    found.pop(b"quotary-receipt/v1\nresponse\n")
    assert len(found) >= 10
    assert [text for text, paths in found.items() if len(paths) > 1] == []
    assert [(a, b) for a in found for b in found if a != b and b.startswith(a)] == []
    assert all(text[-1:] in (b"\n", b" ") for text in found)
