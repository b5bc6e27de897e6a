"""OpenAI's requests as we accept them (docs/formats/openai.md has every parameter; a test walks it).

What would change the answer and is not implemented is refused by name; what cannot change it (``user``,
``metadata``) is read and dropped. A member that nobody knows is refused: silence would look like consent.
"""

from enclave.chat import APIError, Asked, ChatRequest, Message, TextRequest
from enclave.members import Members, invalid, millionths, text

MAX_MESSAGES = 128
MAX_SEED = 2**53 - 1
MAX_BIAS = 300
# Of a prompt's text; tokens are counted later, and a body is bounded before.
MAX_TEXT = 256 * 1024
MAX_FOLLOW = 32_768

_DROPPED = ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier")
_REFUSED = (
    "audio",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "web_search_options",
    "moderation",
    "prompt_cache_options",
    "prompt_cache_retention",
)
_ROLES = ("system", "developer", "user", "assistant")


def parse_chat(body: bytes) -> ChatRequest:
    """Read the body of ``/v1/chat/completions`` or raise ``APIError`` that names the member."""
    members = Members(body)
    for name in _DROPPED:
        members.take(name)
    for name in _REFUSED:
        members.only(name)
    for name in ("tools", "functions"):
        members.only(name, [])
    members.only("tool_choice", "none", "auto")
    members.only("function_call", "none", "auto")
    members.only("parallel_tool_calls", True, False)
    members.only("response_format", {"type": "text"})
    members.only("modalities", ["text"])
    wanted, top = members.boolean("logprobs"), members.integer("top_logprobs", 0, 20)
    if top and not wanted:
        invalid("top_logprobs", "left out, or beside logprobs: true")
    limits = [members.integer(name, 1, 1 << 20) for name in ("max_tokens", "max_completion_tokens")]
    found = ChatRequest(
        model=members.text("model", 128),
        messages=_messages(members.take("messages")),
        asked=_asked(
            members,
            max_tokens=min((limit for limit in limits if limit is not None), default=None),
            top=(top or 0) if wanted else None,
        ),
    )
    members.done()
    return found


def parse_text(body: bytes) -> TextRequest:
    """Read the body of ``/v1/completions`` or raise ``APIError`` that names the member."""
    members = Members(body)
    members.take("user")
    members.only("best_of", 1)
    members.only("echo", False)
    members.only("suffix", "")
    found = TextRequest(
        model=members.text("model", 128),
        prompt=members.text("prompt", MAX_TEXT),
        asked=_asked(
            members,
            max_tokens=members.integer("max_tokens", 1, 1 << 20),
            top=members.integer("logprobs", 0, 5),
        ),
    )
    members.done()
    return found


def _asked(members: Members, *, max_tokens: int | None, top: int | None) -> Asked:
    members.only("n", 1)
    stream = members.boolean("stream")
    token_ids, follow = members.boolean("return_token_ids"), _follow(members.take("follow_token_ids"))
    for name, value in (("return_token_ids", token_ids), ("follow_token_ids", bool(follow))):
        if value and stream:
            invalid(name, "left out with stream")
    return Asked(
        stream=stream,
        include_usage=_include_usage(members.take("stream_options"), stream),
        temperature_ppm=members.ppm("temperature", 0, 2, 1_000_000),
        top_p_ppm=members.ppm("top_p", 0, 1, 1_000_000),
        max_tokens=max_tokens,
        seed=members.integer("seed", -MAX_SEED, MAX_SEED),
        stop=_stop(members.take("stop")),
        frequency_ppm=members.ppm("frequency_penalty", -2, 2, 0),
        presence_ppm=members.ppm("presence_penalty", -2, 2, 0),
        bias=_bias(members.take("logit_bias")),
        top=top,
        token_ids=token_ids,
        follow=follow,
    )


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        invalid("messages", f"an array of 1 to {MAX_MESSAGES} messages")
    return tuple(_message(item, f"messages[{number}]") for number, item in enumerate(value))


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict) or not value.keys() <= {"role", "content", "name"}:
        invalid(where, "an object of role, content and name")
    role = value.get("role")
    if role not in _ROLES:
        invalid(f"{where}.role", "one of " + ", ".join(_ROLES))
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content") for part in content)
    if not isinstance(content, str):
        invalid(f"{where}.content", "a string or an array of text parts")
    return Message("system" if role == "developer" else str(role), content)


def _part(value: object, where: str) -> str:
    if not isinstance(value, dict) or value.keys() != {"type", "text"} or value["type"] != "text":
        invalid(where, "text parts only")
    content = value["text"]
    if not isinstance(content, str):
        invalid(where, "text parts only")
    return content


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > 4:
        invalid("stop", "a string or at most 4 strings")
    return tuple(text(item, "stop", 128) for item in items)


def _bias(value: object) -> tuple[tuple[int, int], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > MAX_BIAS:
        invalid("logit_bias", f"an object of at most {MAX_BIAS} tokens")
    if not all(name.isascii() and name.isdecimal() and len(name) <= 9 for name in value):
        invalid("logit_bias", "an object whose members are named by token ids")
    found = {int(name): millionths(amount, "logit_bias", -100, 100) for name, amount in value.items()}
    if len(found) != len(value):
        invalid("logit_bias", "an object that names each token once")
    return tuple(sorted(found.items()))


def _follow(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_FOLLOW:
        invalid("follow_token_ids", f"an array of 1 to {MAX_FOLLOW} token ids")
    if not all(type(token) is int and token >= 0 for token in value):
        invalid("follow_token_ids", "an array of token ids, 0 or more")
    return tuple(value)


def _include_usage(options: object, stream: bool) -> bool:
    if options is None:
        return False
    known = {"include_usage", "include_obfuscation"}
    if not stream or not isinstance(options, dict) or not options.keys() <= known:
        invalid("stream_options", "an object of include_usage, with stream")
    if options.get("include_obfuscation", False) is not False:
        message = "padding is the sealed channel's work"
        raise APIError(400, "unsupported_value", message, param="stream_options")
    if not isinstance(options.get("include_usage", False), bool):
        invalid("stream_options", "true or false in include_usage")
    return bool(options.get("include_usage", False))
