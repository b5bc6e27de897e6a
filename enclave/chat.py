"""The OpenAI chat request as we accept it, and errors in OpenAI's shape
(platform.openai.com/docs/api-reference/chat).

What would change the answer and is not implemented is refused by name; what cannot change it (``user``,
``metadata``) is read and dropped. A member that nobody knows is refused: silence would look like consent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

MAX_BODY = 256 * 1024
MAX_MESSAGES = 128
MAX_SEED = 2**53 - 1

_IGNORED = frozenset({"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"})
_ONLY: Mapping[str, tuple[object, ...]] = {
    "n": (1, None),
    "frequency_penalty": (0, 0.0, None),
    "presence_penalty": (0, 0.0, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "logit_bias": ({}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "functions": ([], None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "parallel_tool_calls": (True, False, None),
    "reasoning_effort": (None,),
}
_ROLES = ("system", "developer", "user", "assistant")


class APIError(Exception):
    """An answer in OpenAI's error shape. status: HTTP; kind: OpenAI's ``type``; code: stable, for
    programs.
    """

    def __init__(
        self, status: int, code: str, message: str, *, kind: str = "invalid_request_error", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.kind, self.param = status, code, kind, param

    def body(self) -> bytes:
        error = {"message": str(self), "type": self.kind, "param": self.param or None, "code": self.code}
        return json.dumps({"error": error}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. role: system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """The effective parameters of one answer, integers only, as the receipt states them.

    temperature_ppm, top_p_ppm: millionths; temperature 0 is greedy
    seed:                       always set: drawn by the enclave where the client gives none
    frequency_ppm, presence_ppm: taken off a token's logit, for each time and once, millionths
    bias:                       tokens and what is added to their logits, millionths
    top:                        so many of the likeliest tokens are told with each token; absent: no
                                probabilities are told
    """

    temperature_ppm: int
    top_p_ppm: int
    max_tokens: int
    seed: int
    stop: tuple[str, ...]
    frequency_ppm: int = 0
    presence_ppm: int = 0
    bias: tuple[tuple[int, int], ...] = ()
    top: int | None = None

    @property
    def steers(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        return bool(self.frequency_ppm or self.presence_ppm or self.bias)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. max_tokens and seed may be absent; the engine knows the limits and draws a seed."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    temperature_ppm: int
    top_p_ppm: int
    max_tokens: int | None
    seed: int | None
    stop: tuple[str, ...]


def parse_chat(body: bytes) -> ChatRequest:
    """Read a request body or raise ``APIError`` that names the member."""
    members = _members(body)
    for name, allowed in _ONLY.items():
        value = members.pop(name, None)
        if not any(value == item and type(value) is type(item) for item in allowed):
            raise APIError(
                400, "unsupported_value", f"'{name}' has a value that is not supported here", param=name
            )
    for name in _IGNORED:
        members.pop(name, None)
    stream = _boolean(members, "stream")
    options = members.pop("stream_options", None)
    limits = [_integer(members, name, 1, 1 << 20) for name in ("max_tokens", "max_completion_tokens")]
    found = ChatRequest(
        model=_text(members.pop("model", None), "model", 128),
        messages=_messages(members.pop("messages", None)),
        stream=stream,
        include_usage=_include_usage(options, stream),
        temperature_ppm=_ppm(members, "temperature", 2, 1_000_000),
        top_p_ppm=_ppm(members, "top_p", 1, 1_000_000),
        max_tokens=min((limit for limit in limits if limit is not None), default=None),
        seed=_integer(members, "seed", -MAX_SEED, MAX_SEED),
        stop=_stop(members.pop("stop", None)),
    )
    for name in members:
        raise APIError(
            400, "unknown_parameter", f"unrecognized request argument: {name[:64]}", param=name[:64]
        )
    return found


def _members(body: bytes) -> dict[str, object]:
    if len(body) > MAX_BODY:
        raise APIError(
            413, "request_too_large", f"the body has {len(body)} bytes, at most {MAX_BODY} are allowed"
        )
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise APIError(400, "invalid_json", "the body is not JSON, or names a member twice") from error
    if not isinstance(found, dict):
        raise APIError(400, "invalid_json", "the body is not a JSON object")
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        _invalid("messages", f"an array of 1 to {MAX_MESSAGES} messages")
    return tuple(_message(item, f"messages[{number}]") for number, item in enumerate(value))


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict) or not value.keys() <= {"role", "content", "name"}:
        _invalid(where, "an object of role, content and name")
    role = value.get("role")
    if role not in _ROLES:
        _invalid(f"{where}.role", "one of " + ", ".join(_ROLES))
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content") for part in content)
    if not isinstance(content, str):
        _invalid(f"{where}.content", "a string or an array of text parts")
    return Message("system" if role == "developer" else str(role), content)


def _part(value: object, where: str) -> str:
    if not isinstance(value, dict) or value.keys() != {"type", "text"} or value["type"] != "text":
        _invalid(where, "text parts only")
    text = value["text"]
    if not isinstance(text, str):
        _invalid(where, "text parts only")
    return text


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > 4:
        _invalid("stop", "a string or at most 4 strings")
    return tuple(_text(item, "stop", 128) for item in items)


def _include_usage(options: object, stream: bool) -> bool:
    if options is None:
        return False
    if (
        not stream
        or not isinstance(options, dict)
        or not options.keys() <= {"include_usage", "include_obfuscation"}
    ):
        _invalid("stream_options", "an object of include_usage, with stream")
    if options.get("include_obfuscation", False) is not False:
        raise APIError(
            400, "unsupported_value", "padding is the sealed channel's work", param="stream_options"
        )
    if not isinstance(options.get("include_usage", False), bool):
        _invalid("stream_options", "true or false in include_usage")
    return bool(options.get("include_usage", False))


def _boolean(members: dict[str, object], name: str) -> bool:
    value = members.pop(name, None)
    if not isinstance(value, bool | None):
        _invalid(name, "true or false")
    return bool(value)


def _integer(members: dict[str, object], name: str, low: int, high: int) -> int | None:
    value = members.pop(name, None)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _invalid(name, f"an integer from {low} to {high}")
    return value


def _ppm(members: dict[str, object], name: str, high: int, default: int) -> int:
    value = members.pop(name, None)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
        _invalid(name, f"a number from 0 to {high}")
    return round(value * 1_000_000)


def _text(value: object, name: str, limit: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        _invalid(name, f"a string of 1 to {limit} characters")
    return value


def _invalid(name: str, wanted: str) -> NoReturn:
    raise APIError(400, "invalid_value", f"'{name}' must be {wanted}", param=name)
