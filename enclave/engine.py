"""One model thread in front of which answers queue: the only place where prompts become answers.

Threads that serve connections submit a job and read its events; the model never runs in two threads.
Answers join and leave the model's batch between two tokens: a job can be cancelled (the client went away) and
all can be aborted (this measurement was revoked), and both take effect there. A job that waits holds nothing
of the model, and only so many may wait. This module knows no model library: ``enclave.transformer`` is one
``LanguageModel``.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from enclave import events
from enclave.chat import APIError, Message, Sampling
from enclave.text import TextAssembler

# How a seeded token is chosen (``enclave.sampler``), as receipts name it.
SAMPLER = "gumbel-splitmix64/v2"

# Tokens of prompts that are read between two tokens of the answers that are being made.
READ_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, and where it was asked for its logarithmic probability and the likeliest tokens' own."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


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
    """

    finish_reason: str
    ids: tuple[int, ...]
    full: bool = False


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


class Engine:
    """Owns the model and its thread. capacity: jobs that may wait for a row."""

    def __init__(self, model: LanguageModel, *, capacity: int = 32) -> None:
        self.model = model
        self._capacity = capacity
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._aborted = ""
        self._closed = False
        self._batch = _Batch(model)
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, prompt: tuple[int, ...], sampling: Sampling) -> Job:
        """Queue one answer; ``APIError`` 429 where the queue is full, 503 after ``abort``."""
        job = Job(prompt, sampling)
        with self._changed:
            if self._aborted:
                raise APIError(503, "model_stopped", "the model has stopped", kind="server_error")
            if len(self._waiting) >= self._capacity:
                message = "too many requests are waiting for the model"
                raise APIError(429, "queue_full", message, kind="rate_limit_error")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def abort(self, reason: str) -> None:
        """End every answer at its next token and take no more."""
        with self._changed:
            self._aborted = self._aborted or reason
            for job in (*self._waiting, *self._batch.jobs()):
                job.end(reason)
            self._changed.notify()

    def close(self) -> None:
        """Abort, let the thread finish and wait for it."""
        self.abort("cancelled")
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        batch = self._batch
        try:
            while self._wait():
                batch.sweep()
                read = 0
                while read < READ_TOKENS and (batch.reading or self._next()):
                    read += batch.read()
                batch.step()
        except Exception as error:  # noqa: BLE001  # nobody may wait for a thread that is gone
            _failed(error, 0)
            with self._changed:
                self._aborted = self._aborted or "error"
                for job in (*self._waiting, *batch.jobs()):
                    job.put(Output("error", ()))

    def _wait(self) -> bool:
        """Wait until there is something to do; jobs that ended while they waited are answered here."""
        with self._changed:
            while not (self._waiting or self._batch.busy or self._closed):
                self._changed.wait()
            for job in [job for job in self._waiting if job.ended]:
                self._waiting.remove(job)
                job.put(Output(job.ended, ()))
            return bool(self._waiting or self._batch.busy or not self._closed)

    def _next(self) -> bool:
        with self._changed:
            if not self._waiting or not self._batch.room:
                return False
            self._batch.begin(self._waiting.popleft())
            return True


class _Answer:
    """One row's text and tokens, and whether they end it."""

    __slots__ = ("_choices", "_ends", "_text", "ids", "job", "read")

    def __init__(self, job: Job, decode: Callable[[Sequence[int]], str], ends: frozenset[int]) -> None:
        self.job, self._ends = job, ends
        self._text = TextAssembler(decode, job.sampling.stop)
        self._choices: list[Choice] = []
        self.ids: list[int] = []
        self.read = 0

    def take(self, choice: Choice) -> str:
        """Take a token; returns the finish reason where it was the last."""
        self.ids.append(choice.token)
        if choice.token in self._ends:
            return "stop"
        if choice.logprob is not None:
            self._choices.append(choice)
        self._send(self._text.feed(choice.token))
        if self._text.stopped:
            return "stop"
        return "length" if len(self.ids) >= self.job.sampling.max_tokens else ""

    def finish(self, reason: str, *, full: bool = False) -> None:
        """Send what was held back, and how it ended."""
        rest = "" if reason == "error" else self._text.finish()
        if rest or self._choices:
            self.job.put(Piece(rest, tuple(self._choices)))
        self.job.put(Output(reason, tuple(self.ids), full))

    def _send(self, text: str) -> None:
        if text:
            self.job.put(Piece(text, tuple(self._choices)))
            self._choices.clear()


class _Batch:
    """The answers that the model is making, row by row, and the one whose prompt it reads."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._rows: list[_Answer] = []
        self.reading: _Answer | None = None

    @property
    def busy(self) -> bool:
        return bool(self._rows or self.reading)

    @property
    def room(self) -> bool:
        return self.reading is None and len(self._rows) < self._model.rows

    def jobs(self) -> list[Job]:
        """Every job that is being answered; called by other threads."""
        reading = self.reading
        return [answer.job for answer in (*self._rows, *(() if reading is None else (reading,)))]

    def begin(self, job: Job) -> None:
        self.reading = _Answer(job, self._model.decode, self._model.end_ids)

    def sweep(self) -> None:
        """Let those go that somebody ended."""
        if self.reading is not None and self.reading.job.ended:
            self.reading.finish(self.reading.job.ended)
            self.reading = None
        for place in reversed(range(len(self._rows))):
            if self._rows[place].job.ended:
                self._leave(place, self._rows[place].job.ended)

    def read(self) -> int:
        """Read one piece of the prompt; the last lets it join. Returns how many tokens were read."""
        answer = self.reading
        assert answer is not None
        before, prompt = answer.read, answer.job.prompt
        try:
            answer.read = self._model.read(prompt, before)
            if answer.read == len(prompt):
                choice = self._model.join(len(prompt), answer.job.sampling)
                # In this order: whoever aborts meanwhile has to find the job in one of the two.
                self._rows.append(answer)
                self.reading = None
                self._took(len(self._rows) - 1, choice)
        except Exception as error:  # noqa: BLE001  # one bad prompt must not end the thread that serves all others
            self.reading = None
            answer.finish("error", full=_failed(error, len(prompt)))
        return max(answer.read - before, 1)

    def step(self) -> None:
        """Make one token of every row."""
        if not self._rows:
            return
        try:
            choices = self._model.step()
        except MemoryFull as error:
            # The one that joined last goes; the others may fit without it.
            self._leave(len(self._rows) - 1, "error", full=_failed(error, len(self._rows[-1].job.prompt)))
        except Exception as error:  # noqa: BLE001  # nobody knows whose it was, so all that are in it end
            _failed(error, 0)
            for place in reversed(range(len(self._rows))):
                self._leave(place, "error")
        else:
            for place in reversed(range(len(choices))):
                self._took(place, choices[place])

    def _took(self, place: int, choice: Choice) -> None:
        try:
            reason = self._rows[place].take(choice)
        except Exception as error:  # noqa: BLE001  # one text that cannot be made ends one answer
            _failed(error, 0)
            reason = "error"
        if reason:
            self._leave(place, reason)

    def _leave(self, place: int, reason: str, *, full: bool = False) -> None:
        answer, last = self._rows[place], self._rows.pop()
        if answer is not last:
            self._rows[place] = last
        # First, so that its caller gets an end whatever the model does.
        answer.finish(reason, full=full)
        self._model.leave(place)


def _failed(error: Exception, prompt_tokens: int) -> bool:
    """Write down that the model failed; says whether its memory was full."""
    if isinstance(error, MemoryFull):
        events.emit(events.MemoryFull(events.bucket(prompt_tokens)))
        return True
    events.emit(events.ModelFailed(type(error)))
    return False
