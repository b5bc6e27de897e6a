"""A scheduled rebuilder: reads a log from where it stopped and builds every release of its services again.

A verdict is only stated when there is one. What may be otherwise tomorrow (an archive that does not answer, a
source that is away) is tried again, later and later; when the tries are spent the statement is ``failed``
with the class of failure. What is wrong with this machine ends the rebuilder and says nothing of a release.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder import statement
from builder.errors import DiskFull, InputMissing, Interrupted, NixMissing, SandboxMissing, SourceMissing
from builder.nix import Progress
from builder.place import Folder, Place, Waiting
from builder.rebuild import Rebuilt, failed, rebuild_predicate
from builder.statement import Head
from quotary.canonical import time_text
from quotary.client.clock import Clock
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.replay import proven_batches
from quotary.client.source import Files
from quotary.client.standing import bound_age, check_checkpoint, refuse_rollback
from quotary.client.submit import submit
from quotary.client.trust import Memory
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, Malformed, NotAuthorised, QuotaryError, Refused, Unsupported
from quotary.statements.envelope import Envelope, Signer, key_id, raw_public_key, sign, verify
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild
from quotary.statements.schema import Statement, statement_payload

THIS_MACHINE = (NixMissing, SandboxMissing, DiskFull, Interrupted)
LATER = {InputMissing: "input-missing", SourceMissing: "source-missing"}

Build = Callable[[Release], tuple[Rebuilt, str]]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one release: ``verdict`` is match, mismatch, failed, waits or set aside."""

    index: int
    statement_id: str
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class Rebuilder:
    """One organisation's rebuilder of a log's releases.

    services: whose releases it builds
    tries:    after how many it states that an input or the source is missing
    build:    builds one release again, or raises
    """

    policy: Policy
    log: LogClient
    files: Files
    memory: Memory
    clock: Clock
    folder: Folder
    services: frozenset[str]
    organisation: str
    keys: Sequence[Signer]
    tries: int
    build: Build
    progress: Progress

    def look(self) -> Place:
        """Read what the log has published since, and put its releases on the list."""
        place, trail, note = self.folder.load(self.policy.origin), Trail(), self.files.checkpoint()
        found = check_checkpoint(note, self.policy, self.clock, trail)
        refuse_rollback(found, self.policy, self.memory, self.clock, trail)
        bound_age(found, self.policy, self.memory, self.clock, trail)
        for batch in proven_batches(self.files, found.checkpoint, place.next, note):
            for index, entry in enumerate(batch.entries, batch.start):
                place = self._read(place, index, entry)
            place = Place(place.origin, batch.start + len(batch.entries), place.waiting)
            self.folder.save(place)
        return place

    def work(self) -> list[Done]:
        """Build what is due, one after the other, and say what became of each."""
        done: list[Done] = []
        while (item := self.folder.load(self.policy.origin).due(self._now())) is not None:
            done.append(self._one(item))
        return done

    def _read(self, place: Place, index: int, entry: bytes) -> Place:
        try:
            found, _ = statement.statement_of(entry)
        except (Malformed, Unsupported):
            return place  # a record of the log itself, or a kind that this version does not know
        if found.service not in self.services or found.log != self.policy.origin:
            return place
        if isinstance(found.predicate, Rebuild) and self._is_ours(entry):
            return self._drop(place, found.predicate.release)
        if not isinstance(found.predicate, Release) or found.predicate.not_after <= self.clock.now():
            return place
        self.folder.write(f"{index}.release", entry)
        place = self._superseded(place, found.predicate)
        return Place(place.origin, index + 1, (*place.without(index).waiting, Waiting(index)))

    def _superseded(self, place: Place, newer: Release) -> Place:
        """Take the releases off whose every measurement a newer one has: the log would take no verdict."""
        ids = {row.measurement for row in newer.rows}
        for item in place.waiting:
            _, old = self._release(item.index)
            if old.header.service == newer.header.service and {row.measurement for row in old.rows} <= ids:
                place = place.without(item.index)
        return place

    def _is_ours(self, entry: bytes) -> bool:
        ours, envelope = {key_id(raw_public_key(key)): key for key in self.keys}, Envelope.parse(entry)
        for signature in envelope.signatures:
            if signature.keyid in ours:
                verify(raw_public_key(ours[signature.keyid]), signature, envelope.payload)
                return True
        return False

    def _drop(self, place: Place, release: str) -> Place:
        """Take a release off the list that this rebuilder's keys have spoken about already."""
        for item in place.waiting:
            if self._release(item.index)[0].statement_id == release:
                return place.without(item.index)
        return place

    def _one(self, item: Waiting) -> Done:
        found, release = self._release(item.index)
        place = self.folder.load(self.policy.origin)
        try:
            if release.not_after <= self.clock.now():
                raise Refused("not_after", time_text(release.not_after), "a release that still holds")
            result = self._state(item, found, release)
        except THIS_MACHINE:
            raise
        except (CannotTell, NotAuthorised) as error:
            self.folder.save(place.put(item.later(self._now(), str(error)[:300])))
            return Done(item.index, found.statement_id, "waits", str(error))
        except QuotaryError as error:
            self.folder.save(place.without(item.index))
            return Done(item.index, found.statement_id, "set aside", str(error))
        self.folder.save(place.without(item.index))
        return Done(item.index, found.statement_id, result.verdict, result.detail or "")

    def _state(self, item: Waiting, found: Statement, release: Release) -> Rebuilt:
        """Build, sign and submit; a step that was done before the last end is not done again."""
        kept = self.folder.verdict(item.index)
        if kept is None:
            self.progress(f"building release {found.statement_id} (entry {item.index}) again")
            kept = self._built(item, release)
            self.folder.keep(item.index, *kept)
        entry = self.folder.read(item.index, "entry")
        if entry is None:
            entry = self._signed(item.index, found, *kept)
        try:
            submit(self.log, entry, wait=True)
        except NotAuthorised:
            # Another rebuilder may have taken the number; the next try signs with the next one.
            (self.folder.path / f"{item.index}.entry").unlink()
            raise
        return kept[0]

    def _built(self, item: Waiting, release: Release) -> tuple[Rebuilt, str]:
        try:
            return self.build(release)
        except (InputMissing, SourceMissing) as error:
            if item.tries + 1 < self.tries:
                raise
            return failed(LATER[type(error)], error), f"quotary, {self.tries} tries"
        except Refused as error:
            if error.check != "lock":
                raise
            return failed("lock", error), "quotary"

    def _signed(self, index: int, found: Statement, result: Rebuilt, tool: str) -> bytes:
        number = self.log.next_sequence(found.service, "rebuild")
        head = Head(found.log, found.service, number, statement.now())
        predicate = rebuild_predicate(head, found.statement_id, self.organisation, tool, result)
        entry = sign(statement_payload("rebuild", predicate), self.keys)
        self.folder.write(f"{index}.entry", entry)
        return entry

    def _release(self, index: int) -> tuple[Statement, Release]:
        data = self.folder.read(index, "release")
        if data is None:
            raise Malformed(f"{self.folder.path} lacks {index}.release")
        found, _ = statement.statement_of(data)
        if not isinstance(found.predicate, Release):
            raise Malformed(f"{index}.release is a {found.kind}")
        return found, found.predicate

    def _now(self) -> int:
        return int(self.clock.now().timestamp())


def next_due(place: Place, interval: int, now: int) -> float:
    """Return how long to wait: the interval, or less where a release is due earlier."""
    return max(1, min([interval, *(one.not_before - now for one in place.waiting)]))
