"""What ``mutate.py`` is told of one verification."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Functions of one verification, by file, and the smallest tests that should notice a missing check.

    Where no functions are named all of a file's are meant.
    """

    functions: dict[str, tuple[str, ...]]
    tests: tuple[str, ...]
