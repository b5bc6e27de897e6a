"""Database errors as the registry's own: full, unavailable, or our mistake (left as it is)."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from registry.errors import DiskError, StoreFull, StoreUnavailable

FULL = ("disk is full", "no space left", "disk full")
# PostgreSQL's codes outside the driver's operational class: a server that only reads since a fail-over, and a
# transaction that was silent for too long.
UNAVAILABLE = ("25006", "25P03")
FORBIDDEN = "42501"
SQLITE_IOERR = 10


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's operational errors into ``StoreFull``, ``DiskError`` or ``StoreUnavailable``."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("all connections to the database are in use") from error
    except DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None)
        if code == FORBIDDEN:
            raise _forbidden(error) from error
        if not isinstance(error, OperationalError | InterfaceError) and code not in UNAVAILABLE:
            raise
        raise _named(error) from error


def _named(error: DBAPIError) -> StoreFull | StoreUnavailable:
    text = str(error.orig).lower()
    if any(word in text for word in FULL):
        return StoreFull(
            "the disk of the database is full", next_command="make room, then quotary registry doctor"
        )
    kind = DiskError if getattr(error.orig, "sqlite_errorcode", 0) == SQLITE_IOERR else StoreUnavailable
    return kind(
        f"the database did not answer: {text.splitlines()[0] if text else 'no reason given'}",
        # "disk i/o error" is also what SQLite says where it finds no room for its write-ahead log.
        next_command="df -h, then quotary registry doctor",
    )


def _forbidden(error: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database refuses this role: {str(error.orig).splitlines()[0]}",
        next_command="quotary registry roles, as the database's owner",
    )
