"""One model thread with a queue in front of it: the only place where prompts become answers.

Threads that serve connections submit a job and read its events; the model never runs in two threads. A job
can be cancelled (the client went away) and all can be aborted (this measurement was revoked); both take
effect at the next token. This module knows no model library: ``enclave.transformer`` is one
``LanguageModel``.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from enclave.chat import APIError, Message, Sampling

log = logging.getLogger(__name__)


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
    """What the engine needs of a model library."""

    context_length: int
    kernel: Mapping[str, int | str]

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Turn a conversation into the prompt's token ids; safe to call from any thread."""

    def generate(
        self,
        prompt: tuple[int, ...],
        sampling: Sampling,
        emit: Callable[[str], None],
        ended: Callable[[], bool],
    ) -> Output:
        """Answer, calling ``emit`` with text as it becomes certain, until done or ``ended()``.

        Raises ``MemoryFull`` and holds nothing of this conversation afterwards.
        """


class Job:
    """One answer in the making; read it from one thread."""

    __slots__ = ("_ended", "_events", "_output", "prompt", "sampling")

    def __init__(self, prompt: tuple[int, ...], sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self._events: queue.SimpleQueue[str | Output] = queue.SimpleQueue()
        self._ended = ""
        self._output: Output | None = None

    def pieces(self) -> Iterator[str]:
        """Yield text as it comes; afterwards ``output`` says how it ended."""
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

    def put(self, event: str | Output) -> None:
        """Called by the model thread."""
        self._events.put(event)


class Engine:
    """Owns the model and its thread. capacity: jobs that may wait."""

    def __init__(self, model: LanguageModel, *, capacity: int = 32) -> None:
        self.model = model
        self._jobs: queue.Queue[Job | None] = queue.Queue(capacity)
        self._known: set[Job] = set()
        self._lock = threading.Lock()
        self._aborted = ""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, prompt: tuple[int, ...], sampling: Sampling) -> Job:
        """Queue one answer; ``APIError`` 429 where the queue is full, 503 after ``abort``."""
        job = Job(prompt, sampling)
        with self._lock:
            if self._aborted:
                raise APIError(503, "model_stopped", "the model has stopped", kind="server_error")
            self._known.add(job)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            with self._lock:
                self._known.discard(job)
            message = "too many requests are waiting for the model"
            raise APIError(429, "queue_full", message, kind="rate_limit_error") from None
        return job

    def abort(self, reason: str) -> None:
        """End every answer at its next token and take no more."""
        with self._lock:
            self._aborted = reason
            for job in self._known:
                job.end(reason)

    def close(self) -> None:
        """Abort, let the thread finish and wait for it."""
        self.abort("cancelled")
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.put(self._answer(job))
            with self._lock:
                self._known.discard(job)

    def _answer(self, job: Job) -> Output:
        if job.ended:
            return Output(job.ended, ())
        try:
            found = self.model.generate(job.prompt, job.sampling, job.put, lambda: bool(job.ended))
        except MemoryFull:
            log.warning("model.memory_full", extra={"prompt_tokens": len(job.prompt)})
            return Output("error", (), full=True)
        except Exception as error:  # noqa: BLE001  # one bad prompt must not end the thread that serves all others
            # The exception's text may quote the prompt, so only its type is written down.
            log.error("model.failed", extra={"error": type(error).__name__})
            return Output("error", ())
        return Output(job.ended or found.finish_reason, found.ids)
