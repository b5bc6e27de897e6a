"""Ask many at once, wait for as many as are needed, and lose nothing that the slow ones say later."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_WAIT_SECONDS = 2.0
GRACE_SECONDS = 0.5
# What was said longer ago than this is asked again.
KEPT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Asked(Generic[T]):
    subject: bytes
    at: float
    future: "Future[T]"


class Panel(Generic[T]):
    """Asks each of ``names``; who is still busy with an earlier question is not asked another one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._pool = ThreadPoolExecutor(max(1, len(names)), thread_name_prefix="witness")
        self._asked: dict[str, _Asked[T]] = {}

    def ask(
        self,
        subject: bytes,
        question: Callable[[str], T],
        enough: Callable[[Sequence[T]], bool],
        seconds: float = MOST_WAIT_SECONDS,
    ) -> dict[str, T]:
        """Give the answers that came in time; a late one is given by the next ``ask`` about ``subject``.

        enough:  where the answers so far satisfy it, the others have another 0.5 s
        seconds: how long to wait where they do not
        Raises what any question raised, also one of an earlier ``ask``.
        """
        self.settle(subject)
        for name in self._names:
            if name not in self._asked:
                self._asked[name] = _Asked(subject, time.monotonic(), self._pool.submit(question, name))
        mine = {asked.future: name for name, asked in self._asked.items() if asked.subject == subject}
        deadline, satisfied, answers = time.monotonic() + seconds, False, dict[str, T]()
        pending = set(mine)
        while pending:
            done, pending = wait(pending, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
            for future in done:
                del self._asked[mine[future]]
                answers[mine[future]] = self._result(future)
            if not done:
                break
            if not satisfied and enough(list(answers.values())):
                satisfied, deadline = True, min(deadline, time.monotonic() + GRACE_SECONDS)
        return answers

    def idle(self) -> bool:
        """Say whether everybody has answered what they were asked."""
        return all(asked.future.done() for asked in self._asked.values())

    def settle(self, subject: bytes = b"") -> None:
        """Forget late answers about anything but ``subject``; raises what one of them raised."""
        for name, asked in list(self._asked.items()):
            if asked.future.done() and not self._serves(asked, subject):
                del self._asked[name]
                self._result(asked.future)

    def _result(self, future: "Future[T]") -> T:
        if (error := future.exception()) is not None:
            self._asked.clear()
            raise error
        return future.result()

    def _serves(self, asked: _Asked[T], subject: bytes) -> bool:
        fresh = time.monotonic() - asked.at <= KEPT_SECONDS
        return asked.subject == subject and fresh and asked.future.exception() is None
