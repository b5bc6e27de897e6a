"""What is asked of the model, and errors in OpenAI's shape (platform.openai.com/docs/api-reference).

``enclave.openai`` reads these from request bodies; the engine knows them and no JSON.
"""

import json
from dataclasses import dataclass

# What others call a model that runs in an enclave; no service's name has capital letters.
TEE = "TEE/"


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
    follow:                     another machine's answer: its tokens are taken one by one, and where the
                                own choice would have been another is noted
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
    follow: tuple[int, ...] = ()

    @property
    def steers(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        return bool(self.frequency_ppm or self.presence_ppm or self.bias)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of its answer; ``Sampling`` with what may be absent, and how to send it.

    The engine knows the limit of tokens and draws a seed. token_ids: whether the answer names its tokens.
    """

    stream: bool
    include_usage: bool
    temperature_ppm: int
    top_p_ppm: int
    max_tokens: int | None
    seed: int | None
    stop: tuple[str, ...]
    frequency_ppm: int
    presence_ppm: int
    bias: tuple[tuple[int, int], ...]
    top: int | None
    token_ids: bool = False
    follow: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request for the next turn of a conversation."""

    model: str
    messages: tuple[Message, ...]
    asked: Asked


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A checked request to go on with a text (OpenAI's legacy completions)."""

    model: str
    prompt: str
    asked: Asked
