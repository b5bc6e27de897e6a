"""One answer in the making: what is asked of a model, what comes back, and the model as the engine knows it.

This module knows no model library: ``enclave.transformer`` is one ``LanguageModel``.
"""

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from enclave.chat import Message, Sampling


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, and where it was asked for its logarithmic probability and the likeliest tokens' own.

    gap_ppm: where another answer is followed and the own choice was another: how far that was ahead
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    gap_ppm: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is certain now (at the end it may be empty), and the choices since the piece before that
    were asked for with their probabilities.
    """

    text: str
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """How an answer ended.

    finish_reason: stop, length, error, cancelled or revoked
    ids:           every generated token
    full:          whether the error was that the device's memory did not hold the conversation
    gaps:          where it followed another answer and would have gone on otherwise: position, and how
                   far the own choice was ahead, in millionths
    """

    finish_reason: str
    ids: tuple[int, ...]
    full: bool = False
    gaps: tuple[tuple[int, int], ...] = ()


class MemoryFull(Exception):
    """The device's memory does not hold this conversation; a shorter one may fit."""


class LanguageModel(Protocol):
    """What the engine needs of a model library. ``read`` to ``leave`` are called by the model thread alone.

    rows: answers at once; end_ids: tokens that end an answer; vocabulary: how many tokens there are
    """

    context_length: int
    rows: int
    end_ids: frozenset[int]
    vocabulary: int
    kernel: Mapping[str, int | str]

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Turn a conversation into the prompt's token ids; safe to call from any thread."""

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Turn plain text into token ids; safe to call from any thread."""

    def decode(self, ids: Sequence[int]) -> str:
        """Turn tokens into text, without those that control; safe to call from any thread."""

    def read(self, prompt: Sequence[int], at: int) -> int:
        """Read a piece of the one prompt that is being read; returns where the next begins."""

    def join(self, prompt_length: int, sampling: Sampling) -> Choice:
        """Make the prompt that was read the last row of the batch; returns its first token."""

    def step(self) -> list[Choice]:
        """Give the next token of every row; ``MemoryFull`` leaves the batch as it was."""

    def leave(self, place: int) -> None:
        """Take a row out of the batch; the last row gets its place."""


class Job:
    """One answer in the making; read it from one thread."""

    __slots__ = ("_ended", "_events", "_output", "prompt", "sampling")

    def __init__(self, prompt: tuple[int, ...], sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self._events: queue.SimpleQueue[Piece | Output] = queue.SimpleQueue()
        self._ended = ""
        self._output: Output | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield what comes as it comes; afterwards ``output`` says how it ended."""
        while self._output is None:
            event = self._events.get()
            if isinstance(event, Output):
                self._output = event
            else:
                yield event

    def merged(self, left: Callable[[], float]) -> Iterator[Piece]:
        """Yield one piece whenever ``left`` seconds are over: all that came meanwhile, perhaps nothing."""
        while self._output is None:
            text, choices = "", tuple[Choice, ...]()
            with suppress(queue.Empty):
                while self._output is None:
                    event = self._events.get(timeout=left())
                    if isinstance(event, Output):
                        self._output = event
                    else:
                        text, choices = text + event.text, choices + event.choices
            yield Piece(text, choices)

    @property
    def output(self) -> Output:
        """How the answer ended; only after ``pieces`` is exhausted."""
        assert self._output is not None
        return self._output

    def end(self, reason: str) -> None:
        """Ask for an early end with this finish reason; the first reason stays."""
        self._ended = self._ended or reason

    @property
    def ended(self) -> str:
        return self._ended

    def put(self, event: Piece | Output) -> None:
        """Called by the model thread."""
        self._events.put(event)
