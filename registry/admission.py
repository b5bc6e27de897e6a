"""What may enter the log: well-formed statements that F1 would not ignore now (design section 8).

Admission protects the log from noise and builders from mistakes; it decides nothing that a verifier relies
on.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime

from quotary.errors import QuotaryError
from quotary.statements.envelope import MAX_ENTRY, Envelope
from quotary.statements.opened import Opened
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.state_entry import is_reserved
from quotary.tlog.merkle import leaf_hash
from registry.errors import Busy, LogEnded, NotAdmitted, ReservedRecord, TooLarge
from registry.group import Group
from registry.promise import MAX_PROMISES
from registry.quota import Quota
from registry.replica import Replica
from registry.signing import SignerClient
from registry.store import Store

MAX_WAITING = 16_384
MAX_GROUP = 256
RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Parsed:
    """An entry that is well formed."""

    entry: bytes
    leaf_hash: bytes
    envelope: Envelope
    statement: Statement

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


class Admission:
    """Judges and enqueues entries; one per worker process."""

    def __init__(
        self,
        store: Store,
        replica: Replica,
        signer: SignerClient,
        now: Callable[[], datetime],
        promise_seconds: int,
        builders: Quota,
    ) -> None:
        self._builders = builders
        self._store = store
        self._replica = replica
        self._signer = signer
        self._now = now
        self._promise_seconds = promise_seconds
        self._group = Group(self._admit, MAX_GROUP)
        self._promising = Group(self.promises, MAX_PROMISES)

    def submit(self, entry: bytes) -> Logged | Accepted:
        """Take one entry, together with what other threads bring; the same bytes again get the same place."""
        found = self._group.do(parse_entry(entry))
        if isinstance(found, QuotaryError):
            raise found
        return found

    def submit_all(self, entries: Sequence[bytes]) -> list[Logged | Accepted | QuotaryError]:
        """Take entries in their order, each judged as if those before it were logged; one write for all."""
        return self._admit([_parsed_or_error(entry) for entry in entries])

    def promise(self, accepted: Accepted) -> bytes:
        """Give one, asked for together with what other threads ask."""
        return self._promising.do(accepted)

    def promises(self, accepted: Sequence[Accepted]) -> list[bytes]:
        """Give the log's signed word for each that it will be published in time."""
        wanted = [(item.leaf_hash, item.at, item.at + self._promise_seconds) for item in accepted]
        return self._signer.promises(wanted)

    def _admit(self, parsed: Sequence[Parsed | QuotaryError]) -> list[Logged | Accepted | QuotaryError]:
        now = int(self._now().timestamp())
        good = [item for item in parsed if isinstance(item, Parsed)]
        size = self._store.read.published_size()
        known = self._store.read.find_all([item.leaf_hash for item in good])
        fresh = self._fresh(good, known)
        refused = self._judge(fresh, now)
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
            self._store.write.enqueue([(item.leaf_hash, item.entry) for item in admitted], now)
        answers: list[Logged | Accepted | QuotaryError] = []
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

    def _judge(self, items: Sequence[Parsed], now: int) -> dict[bytes, QuotaryError]:
        if not items:
            return {}
        opened = {item.leaf_hash: Opened(item.envelope, item.statement) for item in items}
        outcomes = self._replica.judge(opened, now)
        if end := self._replica.ended:
            found, wanted = f"ended by a {end}", "a log that takes entries"
            return {item.leaf_hash: LogEnded("log", found, wanted) for item in items}
        return {
            name: NotAdmitted(
                f"this entry would have no effect: {outcome.detail or outcome.code}", outcome.code
            )
            for name, outcome in outcomes.items()
            if not outcome.admissible
        }

    def _check_room(self, more: int) -> None:
        waiting = self._store.read.waiting_count()
        if waiting + more > MAX_WAITING:
            raise Busy(f"{waiting} entries wait, at most {MAX_WAITING} may", RETRY_SECONDS)


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
