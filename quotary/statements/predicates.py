"""What the predicates of all kinds share: the header, service names, sets, and objects of free content."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from quotary.canonical import MAX_INTEGER, Fields
from quotary.errors import Malformed

LOG_SERVICE = "log"
"""The reserved service name under which the log's own roles act."""

MAX_SERVICE = 100

# Segments that are safe in a path and in a URL: no empty one, none of dots alone.
_SEGMENT = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_SERVICE = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_MEMBER = re.compile(r"[a-z0-9._:/-]{1,256}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Header:
    """The four members that every predicate has.

    log:      origin of the log that the statement was made for
    service:  whose statement it is; ``log`` for the log's own roles
    sequence: 1 or more, rising per service and kind
    issued:   the maker's clock, for people and for limits on deadlines
    """

    log: str
    service: str
    sequence: int
    issued: datetime


def header(fields: Fields) -> Header:
    """Read the four common members."""
    return Header(
        fields.name("log"),
        parse_service(fields.text("service", MAX_SERVICE)),
        fields.integer("sequence", 1, MAX_INTEGER),
        fields.time("issued"),
    )


def parse_service(text: str) -> str:
    """Read a service name: up to 100 characters, segments of ``a-z 0-9 . _ -`` joined by ``/``."""
    if len(text) > MAX_SERVICE or _SERVICE.fullmatch(text) is None:
        raise Malformed("service is not a name like example.org/chat")
    return text


def refuse_log(found: Header, kind: str) -> None:
    """Refuse a statement of a service in the name of the log itself."""
    if found.service == LOG_SERVICE:
        raise Malformed(f"a {kind} cannot be of the service {LOG_SERVICE}")


def ascending(items: tuple[T, ...], what: str, key: Callable[[T], str] = str) -> tuple[T, ...]:
    """Refuse a set that is not written in ascending order, each item once."""
    names = [key(item) for item in items]
    if names != sorted(set(names)):
        raise Malformed(f"{what} are not in ascending order, each once")
    return items


def strings(fields: Fields, name: str, limit: int, *, low: int = 0, length: int = 256) -> tuple[str, ...]:
    """Read a set of strings of 1 to ``length`` characters, in ascending order."""
    found = fields.items(name, limit, low)
    for item in found:
        if not isinstance(item, str) or not 1 <= len(item) <= length:
            raise Malformed(f"{name} holds something other than strings of 1 to {length} characters")
    return ascending(tuple(str(item) for item in found), name)


def free(fields: Fields, name: str, limit: int) -> Mapping[str, object]:
    """Read an object of free content; its member names, at any depth, are ``[a-z0-9._:/-]``."""
    found = fields.mapping(name, limit)
    _check_names(found, name)
    return found


def _check_names(value: object, what: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if _MEMBER.fullmatch(name) is None:
                raise Malformed(f"{what} has a member name that is not of a-z 0-9 . _ : / -")
            _check_names(item, what)
    elif isinstance(value, list):
        for item in value:
            _check_names(item, what)
