"""One model thread in front of which answers queue: the only place where prompts become answers.

Threads that serve connections submit a job and read its events; the model never runs in two threads.
Answers join and leave the model's batch between two tokens: a job can be cancelled (the client went away) and
all can be aborted (this measurement was revoked), and both take effect there. A job that waits holds nothing
of the model, and only so many may wait.
"""

import threading
from collections import deque

from enclave.batch import Batch, failed
from enclave.chat import APIError, Sampling
from enclave.job import Job, LanguageModel, Output

# How a seeded token is chosen (``enclave.sampler``), as receipts name it.
SAMPLER = "gumbel-splitmix64/v2"

# Tokens of prompts that are read between two tokens of the answers that are being made.
READ_TOKENS = 512


class Engine:
    """Owns the model and its thread. capacity: jobs that may wait for a row."""

    def __init__(self, model: LanguageModel, *, capacity: int = 32) -> None:
        self.model = model
        self._capacity = capacity
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._aborted = ""
        self._closed = False
        self._batch = Batch(model)
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
            failed(error, 0)
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
