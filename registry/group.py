"""One piece of work for all callers that come at the same time, as a database commits for many at once.

Whoever comes while others are worked for waits; the first of those who wait then works for all of them. Alone
a caller pays nothing; under load the cost of one transaction is shared.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Group(Generic[T, R]):
    """Calls ``work`` with the items of those who wait, in the order they came, at most ``limit`` at once.

    ``work`` gives one answer an item, or raises for all of them.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], limit: int) -> None:
        self._work = work
        self._limit = limit
        self._turn = threading.Lock()
        self._coming = threading.Lock()
        self._waiting: list[tuple[T, Future[R]]] = []

    def do(self, item: T) -> R:
        """Have ``item`` worked on, and give its answer."""
        mine: Future[R] = Future()
        with self._coming:
            self._waiting.append((item, mine))
        with self._turn:
            # More than ``limit`` may have come before.
            while not mine.done():
                self._work_for_those_who_wait()
        return mine.result()

    def _work_for_those_who_wait(self) -> None:
        with self._coming:
            taken, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
        try:
            answers = self._work([item for item, _ in taken])
        except Exception as error:  # noqa: BLE001  # it is raised again, to each of them
            for _, future in taken:
                future.set_exception(error)
        else:
            for (_, future), answer in zip(taken, answers, strict=True):
                future.set_result(answer)
