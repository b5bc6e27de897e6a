"""Where a scheduled rebuilder stands in a log: a folder that survives its end at any moment.

``place.json`` says up to which entry the log was read and which releases wait; beside it lie, by index, the
release (``7.release``), what came out (``7.verdict``) and the signed statement (``7.entry``). Each file is
written whole before the next step begins, and each step can be done twice.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from builder.rebuild import Rebuilt
from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed, Refused

PLACE = "place.json"
LOCK = "lock"
MAX_WAITING = 4096
FIRST_DELAY_SECONDS = 60
LONGEST_DELAY_SECONDS = 6 * 3600


@dataclass(frozen=True, slots=True)
class Waiting:
    """A release that is still to be built.

    tries:      how often that was begun without an answer
    not_before: seconds since 1970
    reason:     why the last try gave no answer
    """

    index: int
    tries: int = 0
    not_before: int = 0
    reason: str = "not tried yet"

    def later(self, now: int, reason: str) -> "Waiting":
        """Wait twice as long as the last time."""
        delay = min(FIRST_DELAY_SECONDS << min(self.tries, 16), LONGEST_DELAY_SECONDS)
        return Waiting(self.index, self.tries + 1, now + delay, reason)


@dataclass(frozen=True, slots=True)
class Place:
    """How far the log was read: the index of the next entry, and the releases before it that wait."""

    origin: str
    next: int = 0
    waiting: tuple[Waiting, ...] = ()

    def due(self, now: int) -> Waiting | None:
        """Return the release to build now, the oldest first."""
        return next((one for one in self.waiting if one.not_before <= now), None)

    def without(self, index: int) -> "Place":
        """Take a release off the list."""
        return replace(self, waiting=tuple(one for one in self.waiting if one.index != index))

    def put(self, item: Waiting) -> "Place":
        """Replace a release that waits."""
        return replace(self, waiting=tuple(item if one.index == item.index else one for one in self.waiting))


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one rebuilder and one log."""

    path: Path

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the folder alone; a second rebuilder on it is refused."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Refused("state folder", f"{self.path} in use", "one rebuilder at a time") from error
            yield

    def load(self, origin: str) -> Place:
        """Return the place kept here, or the log's beginning."""
        try:
            data = (self.path / PLACE).read_bytes()
        except FileNotFoundError:
            return Place(origin)
        try:
            fields = Fields(json.loads(data), PLACE)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{self.path / PLACE} is not JSON") from error
        fields.integer("v", 1, 1)
        found = Place(
            fields.text("origin"),
            fields.integer("next"),
            tuple(_waiting(item) for item in fields.items("waiting", MAX_WAITING)),
        )
        fields.done()
        if found.origin != origin:
            raise Refused("state folder", f"{self.path} of {found.origin}", origin)
        return found

    def save(self, place: Place) -> None:
        """Replace the place kept here."""
        waiting = [
            {name: getattr(one, name) for name in ("index", "tries", "not_before", "reason")}
            for one in place.waiting
        ]
        document = {"v": 1, "origin": place.origin, "next": place.next, "waiting": waiting}
        self.write(PLACE, (json.dumps(document, indent=1) + "\n").encode())

    def read(self, index: int, kind: str) -> bytes | None:
        """Return a file about a release, or None."""
        path = self.path / f"{index}.{kind}"
        return path.read_bytes() if path.exists() else None

    def verdict(self, index: int) -> tuple[Rebuilt, str] | None:
        """Return what came out of a release's rebuild and with which tool, if it was built already."""
        data = self.read(index, "verdict")
        if data is None:
            return None
        try:
            fields = Fields(json.loads(data), "verdict")
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{index}.verdict is not JSON") from error
        rows = tuple(item for item in fields.items("rows", 256) if isinstance(item, dict))
        different = tuple(str(name) for name in fields.items("different", 64))
        detail = fields.optional("detail", lambda name: fields.text(name, 1024))
        return Rebuilt(fields.text("verdict"), rows, different, detail), fields.text("tool")

    def keep(self, index: int, found: Rebuilt, tool: str) -> None:
        """Write what came out of a release's rebuild."""
        document = {"verdict": found.verdict, "rows": list(found.rows), "different": list(found.different)}
        document |= {"tool": tool} | ({"detail": found.detail} if found.detail else {})
        self.write(f"{index}.verdict", json.dumps(document).encode())

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, or leave the one of before."""
        fresh = self.path / f".{name}.new"
        try:
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path / name)
        except OSError as error:
            raise CannotTell(f"cannot write {self.path / name}: {error.strerror}") from error


def _waiting(value: object) -> Waiting:
    fields = Fields(value, "waiting release")
    found = Waiting(
        fields.integer("index"), fields.integer("tries"), fields.integer("not_before"), fields.text("reason")
    )
    fields.done()
    return found
