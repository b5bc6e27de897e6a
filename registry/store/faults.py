"""Database errors as the registry's own: full, unavailable, or our mistake (left as it is)."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from registry.errors import StoreFull, StoreUnavailable

FULL = ("disk is full", "no space left", "disk full")


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's operational errors into ``StoreFull`` or ``StoreUnavailable``."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise _named(error) from error


def _named(error: DBAPIError) -> StoreFull | StoreUnavailable:
    text = str(error.orig).lower()
    if any(word in text for word in FULL):
        return StoreFull(
            "the disk of the database is full", next_command="make room, then quotary registry doctor"
        )
    return StoreUnavailable(
        f"the database did not answer: {text.splitlines()[0] if text else 'no reason given'}",
        # "disk i/o error" is also what SQLite says where it finds no room for its write-ahead log.
        next_command="df -h, then quotary registry doctor",
    )
