"""The answers that a model makes at once, row by row, and the one whose prompt it reads; for one thread.

A failure ends the answers that it belongs to, and no others, and its words are written nowhere.
"""

from collections.abc import Callable, Sequence

from enclave import events
from enclave.job import Choice, Job, LanguageModel, MemoryFull, Output, Piece
from enclave.text import TextAssembler


class _Answer:
    """One row's text and tokens, and whether they end it."""

    __slots__ = ("_choices", "_ends", "_gaps", "_text", "ids", "job", "read")

    def __init__(self, job: Job, decode: Callable[[Sequence[int]], str], ends: frozenset[int]) -> None:
        self.job, self._ends = job, ends
        self._text = TextAssembler(decode, job.sampling.stop)
        self._choices: list[Choice] = []
        self._gaps: list[tuple[int, int]] = []
        self.ids: list[int] = []
        self.read = 0

    def take(self, choice: Choice) -> str:
        """Take a token; returns the finish reason where it was the last."""
        if choice.gap_ppm is not None:
            self._gaps.append((len(self.ids), choice.gap_ppm))
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
        self.job.put(Output(reason, tuple(self.ids), full, tuple(self._gaps)))

    def _send(self, text: str) -> None:
        if text:
            self.job.put(Piece(text, tuple(self._choices)))
            self._choices.clear()


class Batch:
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
            answer.finish("error", full=failed(error, len(prompt)))
        return max(answer.read - before, 1)

    def step(self) -> None:
        """Make one token of every row."""
        if not self._rows:
            return
        try:
            choices = self._model.step()
        except MemoryFull as error:
            # The one that joined last goes; the others may fit without it.
            self._leave(len(self._rows) - 1, "error", full=failed(error, len(self._rows[-1].job.prompt)))
        except Exception as error:  # noqa: BLE001  # nobody knows whose it was, so all that are in it end
            failed(error, 0)
            for place in reversed(range(len(self._rows))):
                self._leave(place, "error")
        else:
            for place in reversed(range(len(choices))):
                self._took(place, choices[place])

    def _took(self, place: int, choice: Choice) -> None:
        try:
            reason = self._rows[place].take(choice)
        except Exception as error:  # noqa: BLE001  # one text that cannot be made ends one answer
            failed(error, 0)
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


def failed(error: Exception, prompt_tokens: int) -> bool:
    """Write down that the model failed; says whether its memory was full."""
    if isinstance(error, MemoryFull):
        events.emit(events.MemoryFull(events.bucket(prompt_tokens)))
        return True
    events.emit(events.ModelFailed(type(error)))
    return False
