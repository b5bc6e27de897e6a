"""The OpenAI request: what is read, what is refused by name, and the shape of the refusal."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.chat import APIError, ChatRequest, Message
from enclave.openai import parse_chat, parse_text

BASE = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def parse(**changes: object) -> ChatRequest:
    return parse_chat(json.dumps(BASE | changes).encode())


def test_defaults_are_openais() -> None:
    found = parse()
    assert found.messages == (Message("user", "hi"),)
    asked = found.asked
    assert (asked.temperature_ppm, asked.top_p_ppm, asked.stream) == (1_000_000, 1_000_000, False)
    assert (asked.max_tokens, asked.seed, asked.stop, asked.top) == (None, None, (), None)
    assert (asked.frequency_ppm, asked.presence_ppm, asked.bias) == (0, 0, ())


def test_every_supported_parameter_is_read() -> None:
    found = parse(
        temperature=0.7, top_p=0.9, max_completion_tokens=9, seed=-3, stop=["a", "b"], stream=True,
        stream_options={"include_usage": True}, n=1, user="u", metadata={"k": "v"}, response_format={"type": "text"},
        frequency_penalty=0.5, presence_penalty=-0.5, logit_bias={"7": 1.5, "3": -2}, logprobs=True, top_logprobs=4,
    ).asked  # fmt: skip
    assert (found.temperature_ppm, found.top_p_ppm, found.max_tokens) == (700_000, 900_000, 9)
    assert (found.seed, found.stop, found.stream, found.include_usage) == (-3, ("a", "b"), True, True)
    assert (found.frequency_ppm, found.presence_ppm, found.top) == (500_000, -500_000, 4)
    assert found.bias == ((3, -2_000_000), (7, 1_500_000))
    assert parse(logprobs=True).asked.top == 0
    assert parse(max_tokens=5, max_completion_tokens=4).asked.max_tokens == 4


def test_a_text_is_read_with_its_own_parameters() -> None:
    found = parse_text(json.dumps({"model": "m", "prompt": "p", "logprobs": 2, "max_tokens": 3}).encode())
    assert (found.model, found.prompt, found.asked.top, found.asked.max_tokens) == ("m", "p", 2, 3)


def test_content_parts_and_developer_messages_are_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = parse(messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}])
    assert found.messages == (Message("system", "be brief"), Message("user", "ab"))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("n", 2), ("logprobs", 1), ("tools", [{"type": "function"}]), ("response_format", {"type": "json_object"}),
        ("frequency_penalty", 2.5), ("logit_bias", {"x": 2}), ("stream_options", {"include_usage": True}),
        ("temperature", 3), ("temperature", True), ("top_p", -0.1), ("max_tokens", 0), ("seed", 1.5), ("stop", [""]),
        ("stop", ["a"] * 5), ("stream", "yes"), ("model", ""), ("messages", []), ("quotary_skip_verification", True),
        ("messages", [{"role": "tool", "content": "x"}]), ("messages", [{"role": "user", "content": 1}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), ("n", True),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(member: str, value: object) -> None:
    with pytest.raises(APIError) as caught:
        parse(**{member: value})
    assert caught.value.status == 400
    assert caught.value.param.startswith(member)
    error = json.loads(caught.value.body())["error"]
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b'{"model":"a","model":"b"}', b"[" * 100_000, b'{"a":NaN}']
)
def test_what_is_not_one_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(APIError) as caught:
        parse_chat(body)
    assert caught.value.code == "invalid_json"


def test_a_body_beyond_the_limit_is_413() -> None:
    with pytest.raises(APIError) as caught:
        parse(messages=[{"role": "user", "content": "x" * 300_000}])
    assert caught.value.status == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*BASE, "stop", "stream", "seed", "stream_options", "tools"]), JSON))
def test_any_json_gives_a_request_or_an_api_error(changes: dict[str, object]) -> None:
    with contextlib.suppress(APIError):
        parse(**changes)
