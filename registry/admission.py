"""What may enter the log: well-formed statements that F1 would not ignore now (design section 8).

Admission protects the log from noise and builders from mistakes; it decides nothing that a verifier relies
on.
"""

import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quotary.errors import QuotaryError
from quotary.statements.envelope import MAX_ENTRY, Envelope
from quotary.statements.opened import Opened
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.state_entry import is_reserved
from quotary.tlog.merkle import leaf_hash
from registry.config import Config
from registry.errors import Busy, LogEnded, NotAdmitted, ReservedRecord, TooLarge
from registry.quota import Quota
from registry.replica import Replica
from registry.seal import Seal
from registry.store import Store

MAX_WAITING = 16_384
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Parsed:
    """An entry that is well formed."""

    entry: bytes
    leaf_hash: bytes
    envelope: Envelope
    statement: Statement

    @property
    def opened(self) -> Opened:
        return Opened(self.envelope, self.statement)

    @property
    def statement_id(self) -> str:
        return self.statement.statement_id

    @property
    def signers(self) -> tuple[str, ...]:
        return tuple(signature.keyid for signature in self.envelope.signatures)


@dataclass(frozen=True, slots=True)
class Logged:
    """The entry is published at ``index``."""

    leaf_hash: bytes
    statement_id: str
    index: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The entry waits since ``at`` (Unix seconds)."""

    leaf_hash: bytes
    statement_id: str
    at: int


Answer = Logged | Accepted | QuotaryError
Keys = Mapping[bytes, tuple[bytes, ...]]
"""Public keys by leaf hash."""


class Admission:
    """Judges and enqueues entries, one request after the other, so that each counts those before it.

    seal: what was found out about a release goes to the sequencer under it
    """

    def __init__(
        self,
        store: Store,
        replica: Replica,
        now: Callable[[], datetime],
        builders: Quota,
        seal: Seal | None = None,
    ) -> None:
        self._builders = builders
        self._seal = seal
        self._turn = threading.Lock()
        self._store = store
        self._replica = replica
        self._now = now

    def submit_all(self, entries: Sequence[bytes]) -> list[Answer]:
        """Take entries in their order, each judged as if those before it were logged; one write for all.

        The same bytes again get the same place.
        """
        parsed = [_parsed_or_error(entry) for entry in entries]
        with self._turn:
            return self._admit(parsed)

    def check(self) -> None:
        """Raise the error for which nothing is taken."""
        self._store.write.check()

    def _admit(self, parsed: Sequence[Parsed | QuotaryError]) -> list[Answer]:
        now = int(self._now().timestamp())
        good = [item for item in parsed if isinstance(item, Parsed)]
        size = self._store.read.published_size()
        known = self._store.read.find_all([item.leaf_hash for item in good])
        fresh = self._fresh(good, known)
        refused, keys = self._judge(fresh, now)
        if refused:
            # Others may have brought the same entry since the first look; then it was refused for itself.
            # What waits comes first: it can move from there among the logged, and not back.
            names = list(refused)
            waiting, logged = self._store.read.waiting_among(names), self._store.read.find_all(names)
            refused = {name: error for name, error in refused.items() if name not in waiting | logged.keys()}
            fresh = [item for item in fresh if item.leaf_hash not in waiting | logged.keys()]
            known, size = known | logged, self._store.read.published_size()
        refused |= self._over_quota([item for item in fresh if item.leaf_hash not in refused])
        admitted = [item for item in fresh if item.leaf_hash not in refused]
        if admitted:
            self._check_room(len(admitted))
            rows = [(item.leaf_hash, item.entry) for item in admitted]
            self._store.write.enqueue(rows, now, self._seals(admitted, keys))
        answers: list[Answer] = []
        for item in parsed:
            if isinstance(item, QuotaryError):
                answers.append(item)
            elif item.leaf_hash in refused:
                answers.append(refused[item.leaf_hash])
            elif known.get(item.leaf_hash, size) < size:
                answers.append(Logged(item.leaf_hash, item.statement_id, known[item.leaf_hash]))
            else:
                answers.append(Accepted(item.leaf_hash, item.statement_id, now))
        return answers

    def _fresh(self, items: Sequence[Parsed], known: Container[bytes]) -> list[Parsed]:
        """Give those that are neither logged nor waiting, each once."""
        unknown: dict[bytes, Parsed] = {}
        for item in items:
            if item.leaf_hash not in known:
                unknown.setdefault(item.leaf_hash, item)
        waiting = self._store.read.waiting_among(list(unknown))
        return [item for item in unknown.values() if item.leaf_hash not in waiting]

    def _over_quota(self, items: Sequence[Parsed]) -> dict[bytes, QuotaryError]:
        """Charge the keys that signed; they are genuine, because F1 would admit the entries."""
        refused: dict[bytes, QuotaryError] = {}
        for item in items:
            try:
                if item.statement.kind != "revocation":
                    self._builders.take(item.signers)
            except Busy as error:
                refused[item.leaf_hash] = error
        return refused

    def _judge(self, items: Sequence[Parsed], now: int) -> tuple[dict[bytes, QuotaryError], Keys]:
        """Give why entries are refused, and the keys that signed the others, by leaf hash."""
        if not items:
            return {}, {}
        found = self._replica.judge({item.leaf_hash: item.opened for item in items}, now)
        if end := self._replica.ended:
            ended = LogEnded("log", f"ended by a {end}", "a log that takes entries")
            return dict.fromkeys(found, ended), {}
        refused: dict[bytes, QuotaryError] = {
            name: NotAdmitted(
                f"this entry would have no effect: {outcome.detail or outcome.code}", outcome.code
            )
            for name, (outcome, _) in found.items()
            if not outcome.admissible
        }
        return refused, {name: keys for name, (_, keys) in found.items() if name not in refused}

    def _seals(self, items: Sequence[Parsed], keys: Keys) -> dict[bytes, bytes]:
        if self._seal is None:
            return {}
        made = {
            item.leaf_hash: self._seal.close(item.leaf_hash, item.opened, keys[item.leaf_hash])
            for item in items
        }
        return {name: sealed for name, sealed in made.items() if sealed is not None}

    def _check_room(self, more: int) -> None:
        waiting = self._store.read.waiting_count()
        if waiting + more > MAX_WAITING:
            raise Busy(f"{waiting} entries wait, at most {MAX_WAITING} may", RETRY_SECONDS)


def admission_of(
    config: Config, store: Store, now: Callable[[], datetime], seal: Seal | None = None
) -> Admission:
    """Make the admission of one registry."""
    builders = Quota("builder", config.builder_burst, config.builder_per_second)
    return Admission(store, Replica(config.origin, store.read), now, builders, seal)


def parse_entry(entry: bytes) -> Parsed:
    """Read an entry as a statement, or raise what is wrong with it."""
    if len(entry) > MAX_ENTRY:
        raise TooLarge(f"an entry has {len(entry)} bytes, at most {MAX_ENTRY} are allowed", MAX_ENTRY)
    if is_reserved(entry):
        raise ReservedRecord("reserved records are made by the log only")
    envelope = Envelope.parse(entry)
    return Parsed(entry, leaf_hash(entry), envelope, parse_statement(envelope.payload))


def _parsed_or_error(entry: bytes) -> Parsed | QuotaryError:
    try:
        return parse_entry(entry)
    except QuotaryError as error:
        return error
