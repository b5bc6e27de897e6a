"""How a register came to be: the steps of a computation, so that a mismatch can name the first input that
differs.

Every ``measure`` function returns ``Measured``: the registers and, for each register, its steps in order. Two
people who computed different values compare the steps, not the values.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ZERO = bytes(48)


@dataclass(frozen=True, slots=True)
class Step:
    """One input to a register.

    register: which register it went into, e.g. ``rtmr1``
    name:     what was measured, e.g. ``kernel`` or ``page 0xffc84000``
    digest:   digest of the input (48 bytes, SHA-384, unless the step's name says otherwise)
    after:    the register's value after this step
    """

    register: str
    name: str
    digest: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """Registers by name, and the steps that led to each, in order."""

    registers: Mapping[str, bytes]
    steps: tuple[Step, ...]

    def first_difference(self, other: "Measured") -> str:
        """Say in one line where two computations part; the empty text when no step differs."""
        for mine, theirs in zip(self.steps, other.steps, strict=False):
            if (mine.register, mine.name) != (theirs.register, theirs.name):
                return f"{mine.register}: step {mine.name} here, {theirs.register}: {theirs.name} there"
            if mine.digest != theirs.digest:
                return (
                    f"{mine.register}: {mine.name} is {mine.digest.hex()} here, {theirs.digest.hex()} there"
                )
        if len(self.steps) != len(other.steps):
            return f"{len(self.steps)} steps here, {len(other.steps)} there"
        return ""


def extend(register: str, events: Iterable[tuple[str, bytes]]) -> tuple[bytes, tuple[Step, ...]]:
    """Extend a register of 48 zero bytes with event digests: ``value = SHA-384(value || digest)``."""
    value, steps = ZERO, []
    for name, digest in events:
        value = hashlib.sha384(value + digest).digest()
        steps.append(Step(register, name, digest, value))
    return value, tuple(steps)
