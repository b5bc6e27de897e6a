"""From token ids to text that may be sent: whole characters only, never part of a stop string."""

from collections.abc import Callable, Sequence


class TextAssembler:
    """Turns output tokens into text pieces that never have to be taken back.

    decode: turns tokens into text; a byte-level tokenizer shows half a character as U+FFFD
    stop:   texts at which the answer ends; they are not part of it

    Each token is decoded with the few before it that may touch it, so a long answer costs no more a token.
    """

    __slots__ = ("_decode", "_ids", "_kept", "_known", "_sent", "_stop", "_text", "stopped")

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._decode, self._stop = decode, tuple(stop)
        # Tokens whose text may still grow, after those (``_known`` of them) that are decoded with them
        # because a tokenizer may write a token otherwise where it begins a text.
        self._ids: list[int] = []
        self._known = 0
        # Text that is whole, and what the tokens after it say as yet.
        self._kept = self._text = ""
        self._sent = 0
        self.stopped = False

    def feed(self, token: int) -> str:
        """Take one token and return the text that is certain now; sets ``stopped`` at a stop string."""
        assert not self.stopped
        self._ids.append(token)
        before = self._decode(self._ids[: self._known])
        self._text = self._kept + self._decode(self._ids)[len(before) :]
        if not self._text.endswith("\ufffd"):
            self._kept, self._ids, self._known = (
                self._text,
                self._ids[self._known :],
                len(self._ids) - self._known,
            )
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
