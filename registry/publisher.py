"""Publishing: collect cosignatures over the newest signed checkpoint until the policy's quorum holds."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from quotary.errors import QuotaryError, Refused
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import consistency_path
from registry.metrics import Meters
from registry.store import Published, Signed, Store
from registry.tree import StoredTiles
from registry.witnesses import Answer, Rounds

log = logging.getLogger("registry")

RETRY_SECONDS = 1.0


class Publisher:
    """Shows signed checkpoints to the witnesses and publishes those that their quorum cosigned."""

    def __init__(
        self,
        store: Store,
        rounds: Rounds,
        policy: TlogPolicy,
        now: Callable[[], datetime],
        refresh_seconds: float,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._store = store
        self._rounds = rounds
        self._policy = policy
        self._now = now
        self._refresh_seconds = refresh_seconds
        self._tiles = StoredTiles(store.read)
        self._next_try = 0.0
        self._next_refresh = 0.0

    def check_witnesses(self, origin: str) -> None:
        """Ask before the first signature whether a witness is ahead of us.

        Raises ``RolledBack`` where one is, ``CannotTell`` where none of the policy's answers. A log without
        witnesses has only its signer's memory to ask.
        """
        signed = self._store.read.signed()
        if signed is None:
            self._rounds.check_unknown(origin)
        else:
            self._rounds.check(signed, self._prover(signed))

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
        found = Published(signed.size, note, int(self._now().timestamp()))
        self._store.write.publish(found)
        self._next_refresh = time.monotonic() + self._refresh_seconds
        log.info("checkpoint.published", extra={"size": signed.size, "refreshed": not is_new})
        return found

    def _cosigned(self, signed: Signed) -> bytes | None:
        answers = self._rounds.collect(signed, self._prover(signed))
        self._meters.witnesses(answers)
        note = signed.note + b"".join(self._believed(signed, answer) for answer in answers)
        try:
            self._policy.verify(note, now=int(self._now().timestamp()))
        except Refused as error:
            log.warning("quorum.missing", extra={"size": signed.size, "why": str(error)})
            return None
        return note

    def _believed(self, signed: Signed, answer: Answer) -> bytes:
        """Keep the lines that a witness of the policy really made; one bad line would spoil the note."""
        keys = [witness.key for witness in self._policy.witnesses.values()]
        kept = []
        for line in answer.lines:
            try:
                text = Note.parse(signed.note).text
                found = Note.parse((text + "\n").encode("utf-8") + line)
                found.verify(keys)
            except QuotaryError as error:
                log.error("witness.bad_line", extra={"witness": answer.url, "why": str(error)})
            else:
                kept.append(bytes(line))
        return b"".join(kept)

    def _prover(self, signed: Signed) -> Callable[[int], Sequence[bytes]]:
        return lambda old: consistency_path(old, signed.size, self._tiles)
