"""From token ids to text that may be sent: whole characters only, never part of a stop string."""

from collections.abc import Callable, Sequence


class TextAssembler:
    """Turns output tokens into text pieces that never have to be taken back.

    decode: turns all output ids so far into text; a byte-level tokenizer shows half a character as U+FFFD
    stop:   texts at which the answer ends; they are not part of it
    """

    __slots__ = ("_decode", "_ids", "_sent", "_stop", "_text", "stopped")

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._text = ""
        self._sent = 0
        self.stopped = False

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._ids)

    def feed(self, token: int) -> str:
        """Take one token and return the text that is certain now; sets ``stopped`` at a stop string."""
        assert not self.stopped
        self._ids.append(token)
        self._text = self._decode(self._ids)
        # What might begin a stop string was held back, so none can begin before ``_sent``.
        ends = [at for stop in self._stop if (at := self._text.find(stop, self._sent)) >= 0]
        if ends:
            self._text, self.stopped = self._text[: min(ends)], True
        return self._take(len(self._text) if self.stopped else self._certain())

    def finish(self) -> str:
        """Return what was held back; the answer ends here."""
        return self._take(len(self._text))

    def _certain(self) -> int:
        whole = self._text.rstrip("\ufffd")
        held = (n for stop in self._stop for n in range(1, len(stop)) if whole.endswith(stop[:n]))
        return len(whole) - max(held, default=0)

    def _take(self, end: int) -> str:
        piece = self._text[self._sent : end] if end > self._sent else ""
        self._sent = max(self._sent, end)
        return piece
