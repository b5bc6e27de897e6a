"""Floors and rows for tests, with the members that the statements' own types have."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mask:
    mask: bytes
    value: bytes


@dataclass(frozen=True)
class RTMR0:
    exact: tuple[bytes, ...] = ()
    free: tuple[str, ...] = ()


class Any(tuple):
    """A list that holds everything: real quotes come from guests of every kind."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        return True


@dataclass(frozen=True)
class Row:
    configuration: tuple[bytes, ...] = ()
    rtmr0: RTMR0 | None = None
    td_attributes: Mask | None = None
    xfam: Mask | None = None


@dataclass(frozen=True)
class Floor:
    minimum: Mapping[str, int | bytes] = field(default_factory=dict)
    evaluation_number: int = 1
    accepted_status: tuple[str, ...] = ("UpToDate",)
    grace_seconds: int = 0
    denied_advisories: tuple[str, ...] = ()
    denied_families: tuple[str, ...] = ()
    denied_chips: tuple[str, ...] = ()


EVERYTHING = Any(("everything",))
ANYTHING = Floor(accepted_status=EVERYTHING)
ROW = Row(configuration=EVERYTHING, rtmr0=RTMR0(exact=EVERYTHING))
