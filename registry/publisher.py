"""Publishing: collect cosignatures over the newest signed checkpoint until the policy's quorum holds."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from quotary.errors import Malformed, QuotaryError, Refused
from quotary.tlog.note import Note
from quotary.tlog.policy import MAX_AHEAD_SECONDS, TlogPolicy
from quotary.tlog.tiles import consistency_path
from registry.clock import MOST_OFF_SECONDS, WitnessedClock
from registry.errors import ClockRefused
from registry.lag import History
from registry.metrics import Meters
from registry.store import Published, Signed, Store
from registry.tree import StoredTiles
from registry.witnesses import Answer, Rounds

log = logging.getLogger("registry")

RETRY_SECONDS = 1.0
MAX_LINES = 16


@dataclass(frozen=True, slots=True)
class Believed:
    """One witness's answer, and those of its lines that a witness of the policy made, each with its time."""

    answer: Answer
    lines: tuple[tuple[bytes, int], ...]

    @property
    def at(self) -> int | None:
        """When it cosigned last, POSIX seconds."""
        return max((at for _, at in self.lines), default=None)


class Publisher:
    """Shows signed checkpoints to the witnesses and publishes those that their quorum cosigned."""

    def __init__(
        self,
        store: Store,
        rounds: Rounds,
        policy: TlogPolicy,
        clock: WitnessedClock,
        refresh_seconds: float,
        meters: Meters | None = None,
        history: History | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._history = history
        self._store = store
        self._rounds = rounds
        self._policy = policy
        self._clock = clock
        self._keys = [witness.key for witness in policy.witnesses.values()]
        self._refresh_seconds = refresh_seconds
        self._tiles = StoredTiles(store.read)
        self._next_try = 0.0
        self._next_refresh = 0.0

    def follow(self, policy: TlogPolicy) -> None:
        """Go on under another policy, from the next ``publish`` on."""
        self._policy = policy
        self._keys = [witness.key for witness in policy.witnesses.values()]
        self._rounds.follow([witness.url for witness in policy.witnesses.values()], policy.logs)
        self.retry_now()

    def check_witnesses(self, origin: str) -> None:
        """Ask before the first signature whether a witness is ahead of us, and what time it is.

        Raises ``RolledBack`` where one is, ``CannotTell`` where none of the policy's answers, and
        ``ClockRefused``. A log without witnesses has only its signer's memory to ask.
        """
        signed = self._store.read.signed()
        if signed is None:
            self._rounds.check_unknown(origin)
        else:
            answers = self._rounds.check(signed, self._prover(signed))
            self._clock.hear(_times(self._believed(signed, answer) for answer in answers))

    def settle(self) -> None:
        """Raise ``RolledBack`` where a slow witness has proven it since; asked before each signature."""
        self._rounds.settle()

    def ask_the_time(self) -> None:
        """Hear the witnesses again where the clock is refused: it may be theirs that was wrong."""
        signed = self._store.read.signed()
        if signed is not None and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + RETRY_SECONDS
            self._cosigned(signed)

    def retry_now(self, *, refresh: bool = False) -> None:
        """Let the next ``publish`` ask the witnesses again; with ``refresh`` also where nothing is new."""
        self._next_try = 0.0
        if refresh:
            self._next_refresh = 0.0

    def publish(self) -> Published | None:
        """Publish what is newly signed, or refresh the cosignatures when it is time; None if nothing
        changed.
        """
        signed, published = self._store.read.signed(), self._store.read.published()
        if signed is None or time.monotonic() < self._next_try:
            return None
        is_new = published is None or published.size < signed.size
        if not is_new and time.monotonic() < self._next_refresh:
            return None
        note = self._cosigned(signed)
        if note is None:
            self._next_try = time.monotonic() + RETRY_SECONDS
            return None
        found = Published(signed.size, note, int(self._clock().timestamp()))
        self._store.write.publish(found)
        self._next_refresh = time.monotonic() + self._refresh_seconds
        log.info("checkpoint.published", extra={"size": signed.size, "refreshed": not is_new})
        return found

    def _cosigned(self, signed: Signed) -> bytes | None:
        believed: dict[str, Believed] = {}

        def believe(answer: Answer) -> Believed:
            if answer.url not in believed:
                believed[answer.url] = self._believed(signed, answer)
            return believed[answer.url]

        def enough(answers: Sequence[Answer]) -> bool:
            return self._quorum(signed, [_timely(believe(answer), now) for answer in answers], now) is None

        now = int(self._clock.unchecked().timestamp())
        heard = [believe(answer) for answer in self._rounds.collect(signed, self._prover(signed), enough)]
        try:
            now = self._clock.hear(_times(heard))
        except ClockRefused:
            self._meters.quorum(False)
            raise
        heard = [_noted(found, _timely(found, now), now) for found in heard]
        self._meters.witnesses((found.answer, found.at) for found in heard)
        missing = self._quorum(signed, heard, now)
        self._meters.quorum(missing is None)
        if self._history is not None:
            self._history.add((found.answer.url, found.at) for found in heard)
        if missing is not None:
            log.warning("quorum.missing", extra={"size": signed.size, "why": missing})
            return None
        return _with_lines(signed, heard)

    def _quorum(self, signed: Signed, heard: Sequence[Believed], now: int) -> str | None:
        """Say what the quorum lacks; None where it holds."""
        try:
            self._policy.verify(_with_lines(signed, heard), now=now)
        except Refused as error:
            return str(error)
        return None

    def _believed(self, signed: Signed, answer: Answer) -> Believed:
        """Keep the lines that a witness of the policy really made; one bad line would spoil the note."""
        kept = []
        text = Note.parse(signed.note).text
        try:
            if len(answer.lines) > MAX_LINES:
                raise Malformed(f"{len(answer.lines)} lines, at most {MAX_LINES} are looked at")
            for line in answer.lines:
                found = Note.parse((text + "\n").encode("utf-8") + line).verify(self._keys)
                kept.append((bytes(line), max(at for times in found.values() for at in times)))
        except QuotaryError as error:
            log.error("witness.bad_line", extra={"witness": answer.url, "why": str(error)})
        if answer.state == "cosigned" and not kept:
            answer = replace(answer, state="faulty")
        return Believed(answer, tuple(kept))

    def _prover(self, signed: Signed) -> Callable[[int], Sequence[bytes]]:
        return lambda old: consistency_path(old, signed.size, self._tiles)


def _timely(found: Believed, now: int) -> Believed:
    """Leave out lines of another time: an old one sent again, or one from the future."""
    kept = [(line, at) for line, at in found.lines if -MOST_OFF_SECONDS <= at - now <= MAX_AHEAD_SECONDS]
    return replace(found, lines=tuple(kept))


def _noted(found: Believed, timely: Believed, now: int) -> Believed:
    """Name a witness whose cosignatures are all of another time."""
    if timely.lines or found.at is None:
        return timely
    log.error("witness.stale", extra={"witness": found.answer.url, "behind_seconds": now - found.at})
    return replace(timely, answer=replace(found.answer, state="stale"))


def _with_lines(signed: Signed, heard: Iterable[Believed]) -> bytes:
    return signed.note + b"".join(line for found in heard for line, _ in found.lines)


def _times(heard: Iterable[Believed]) -> list[int]:
    return [found.at for found in heard if found.at is not None]
