"""What can go wrong in the registry, beyond ``quotary.errors``; ``problems.py`` alone maps these to HTTP."""

from quotary.errors import CannotTell, Judged, NotAuthorised, QuotaryError, Refused, Rejected


class HeadMoved(QuotaryError):
    """The compare-and-swap on the head row failed: another sequencer is at work. Stop, do not retry."""

    exit_code = 40


class LeadershipLost(CannotTell):
    """Another sequencer may lead by now: stop, and stand by again."""


class RolledBack(Refused):
    """A witness or the signer remembers another log: a restored backup or a fork. Nothing is signed."""


class Damaged(Rejected):
    """Stored bytes are not those whose hashes were kept: a disk or memory failed. Nothing is signed."""


class ClockRefused(Refused):
    """The clock is further behind the log's own time than may be clamped."""


class WrongSchema(CannotTell):
    """The database has another schema than this code."""


class UnsafeDatabase(CannotTell):
    """The database library or its settings can lose or corrupt committed entries."""


class StoreFull(CannotTell):
    """The disk is full or the database refuses writes for want of space; nothing was written."""


class FlushFailed(Refused):
    """A write did not get to the disk for sure; what is read from then on may never have got there. Stop."""

    def __init__(self, found: str) -> None:
        advice = "look at the disk (dmesg), restart the machine, then quotary registry fsck and serve"
        super().__init__("disk", found, "a write that is on the disk", next_command=advice)


class StoreUnavailable(CannotTell):
    """The database did not answer; the write may or may not have landed."""


class DiskError(StoreUnavailable):
    """SQLite could not read, write or flush; it says so too where its write-ahead log finds no room."""


class SignerRefused(Refused):
    """The signer will not sign this head."""


class SignerUnavailable(CannotTell):
    """No signer answers on the socket."""


class JudgeUnavailable(CannotTell):
    """No judge answers on the socket; what was handed on may or may not wait."""


class NotPublished(QuotaryError):
    """The published log has not grown that far; carries the published size."""

    exit_code = 40

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class NotFound(QuotaryError):
    """Nothing public has this name."""

    exit_code = 40


class NotAdmitted(NotAuthorised):
    """The map function would ignore this entry now; ``code`` is its reason code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class LogEnded(Refused):
    """The log's roots have frozen or closed it: it takes no entries any more."""


class ReservedRecord(NotAuthorised):
    """Only the log itself makes reserved records."""


class TooLarge(QuotaryError):
    """The body is longer than ``limit`` bytes."""

    exit_code = 30

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class Busy(CannotTell):
    """More entries wait than the log accepts; try again after ``retry_seconds``."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class EvidenceRefused(QuotaryError):
    """A named check decided against evidence that somebody posted."""

    exit_code = 10

    def __init__(self, error: Judged) -> None:
        super().__init__(str(error))
        self.check = error.check
        self.found = error.found
        self.wanted = error.wanted


class CollateralMissing(CannotTell):
    """The vendor's documents beside posted evidence are neither in the request nor kept here."""
