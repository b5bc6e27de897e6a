"""How an answer looks in OpenAI's two forms: a chat's turn, and the continuation of a text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from enclave.job import Choice

Decode = Callable[[Sequence[int]], str]
Document = dict[str, object]


class Form(Protocol):
    """One of OpenAI's forms.

    endpoint: where it is asked for; name: begins the answer's id; whole_kind, part_kind: ``object``
    """

    @property
    def endpoint(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def whole_kind(self) -> str: ...
    @property
    def part_kind(self) -> str: ...

    def first(self) -> Document | None:
        """The choice of the event that begins a stream, if there is one."""

    def part(self, text: str, choices: Sequence[Choice], *, told: bool) -> Document:
        """The choice of one event. told: whether probabilities were asked for."""

    def last(self, reason: str) -> Document:
        """The choice of the event that says how the answer ended."""

    def whole(self, text: str, choices: Sequence[Choice], reason: str, *, told: bool) -> Document:
        """The choice of an answer in one piece."""


@dataclass(frozen=True, slots=True)
class ChatForm:
    """``/v1/chat/completions``."""

    decode: Decode
    endpoint: str = "/v1/chat/completions"
    name: str = "chatcmpl"
    whole_kind: str = "chat.completion"
    part_kind: str = "chat.completion.chunk"

    def first(self) -> Document | None:
        return {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}

    def part(self, text: str, choices: Sequence[Choice], *, told: bool) -> Document:
        found: Document = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return found | self._logprobs(choices) if told else found

    def last(self, reason: str) -> Document:
        return {"index": 0, "delta": {}, "finish_reason": reason}

    def whole(self, text: str, choices: Sequence[Choice], reason: str, *, told: bool) -> Document:
        message = {"role": "assistant", "content": text}
        found: Document = {"index": 0, "message": message, "finish_reason": reason}
        return found | self._logprobs(choices) if told else found

    def _logprobs(self, choices: Sequence[Choice]) -> Document:
        content = [
            self._token(choice.token, choice.logprob)
            | {"top_logprobs": [self._token(*likely) for likely in choice.top]}
            for choice in choices
        ]
        return {"logprobs": {"content": content, "refusal": None}}

    def _token(self, token: int, logprob: float | None) -> Document:
        text = self.decode((token,))
        # Part of a character has no text, and its bytes are not known here.
        known = "\ufffd" not in text
        return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if known else None}


@dataclass(frozen=True, slots=True)
class TextForm:
    """``/v1/completions``."""

    decode: Decode
    endpoint: str = "/v1/completions"
    name: str = "cmpl"
    whole_kind: str = "text_completion"
    part_kind: str = "text_completion"

    def first(self) -> Document | None:
        return None

    def part(self, text: str, choices: Sequence[Choice], *, told: bool) -> Document:
        logprobs = self._logprobs(choices) if told else None
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}

    def last(self, reason: str) -> Document:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}

    def whole(self, text: str, choices: Sequence[Choice], reason: str, *, told: bool) -> Document:
        return self.part(text, choices, told=told) | {"finish_reason": reason}

    def _logprobs(self, choices: Sequence[Choice]) -> Document:
        return {
            "tokens": [self.decode((choice.token,)) for choice in choices],
            "token_logprobs": [choice.logprob for choice in choices],
            "top_logprobs": [
                {self.decode((token,)): logprob for token, logprob in choice.top} for choice in choices
            ],
        }
