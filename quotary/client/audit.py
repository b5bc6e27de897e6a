"""Auditing a log: everything that it ever said, checked again from its files alone (design sections 3 to 5).

An auditor needs no trust in the registry: the policy names the log's keys, its witnesses and its genesis;
all else is recomputed. The first contradiction ends the audit as a ``Finding``.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from quotary.client.finding import Exhibit, Finding
from quotary.client.opener import Opener
from quotary.client.policy import Policy
from quotary.client.replay import Observe, Replay, unobserved
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files
from quotary.errors import InvalidProof, InvalidSignature, Malformed, Refused
from quotary.statements.order import Order
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import verify_consistency
from quotary.tlog.note import Note
from quotary.tlog.tiles import HashTree

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Audited:
    """What was recomputed and found equal.

    size, root:   of the newest checkpoint, which all of this is about
    quorum_at:    seconds since 1970 that the witness quorum vouches for; None under ``quorum none``
    log_time:     ``ts`` of the newest state entry
    map_root:     32 bytes, derived from the entries
    states:       number of state entries
    outcomes:     number of entries by F1's code; those but ``effective`` and ``notice`` had no effect
    orders:       what the log's roots ordered: each order with its index
    fresh:        entries that this run replayed; those before were replayed by an earlier one
    checkpoints:  number of other signed checkpoints that this log was found to continue
    """

    origin: str
    size: int
    root: bytes
    quorum_at: int | None
    log_time: int
    map_root: bytes
    states: int
    outcomes: Mapping[str, int]
    orders: tuple[tuple[int, Order], ...]
    fresh: int
    checkpoints: int


class Auditor:
    """Audits one log, again and again, going on from where it was.

    report:  is told the entries done and the entries to do, after each batch
    opener:  opens the entries; without one, all happens in this process
    observe: is told of each interval (see ``Replay``)
    """

    def __init__(
        self,
        policy: Policy,
        store: ReplayStore,
        report: Report,
        opener: Opener | None = None,
        observe: Observe = unobserved,
    ) -> None:
        self._policy = policy
        self._store = store
        self._report = report
        self._replay = Replay(policy.origin, policy.genesis, store, opener or Opener(1), observe)

    @property
    def note(self) -> bytes:
        """The newest checkpoint that was accepted, as the log signed it."""
        found = self._store.fact("note")
        assert found is not None, "nothing was audited yet"
        return found

    def audit(self, files: Files, others: Sequence[bytes] = ()) -> Audited:
        """Audit what ``files`` publish now.

        1. The checkpoint is this log's: log keys, witness quorum, the policy's minimum. 2. It continues the
        newest one of the last run. 3. It continues every other signed checkpoint at hand. 4. Entries, tiles,
        state entries, statements and map roots, from where the last run ended.

        others: signed notes from elsewhere, e.g. a colleague's; a larger one than ours is refused
        """
        note = files.checkpoint()
        quorum_at = self._accept(note)
        return self._follow(files, note, quorum_at, others)

    def derive(self, files: Files, note: bytes) -> Audited:
        """Audit up to a checkpoint that the log's keys signed, whoever witnessed it, as a cosigner does."""
        log_signed(self._policy, note)
        return self._follow(files, note, None, ())

    def _follow(self, files: Files, note: bytes, quorum_at: int | None, others: Sequence[bytes]) -> Audited:
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        before = self._store.fact("note")
        if before is not None:
            check_continues(files, checkpoint, note, before, rollback=True)
        for other in others:
            log_signed(self._policy, other)
            check_continues(files, checkpoint, note, other, rollback=False)
        self._store.keep("note", note)
        start = self._replay.size
        with closing(self._replay.run(files, checkpoint, note)) as sizes:  # it writes when it ends
            for size in sizes:
                self._report(size, checkpoint.size)
        progress = self._replay.progress
        assert progress.state is not None, "a replay ends with a state entry"
        return Audited(
            self._policy.origin,
            checkpoint.size,
            checkpoint.root,
            quorum_at,
            progress.state.ts,
            progress.map_root,
            progress.states,
            progress.outcomes,
            tuple((index, Order.parse(entry)) for index, entry in self._store.orders()),
            checkpoint.size - start,
            len(others) + (before is not None),
        )

    def _accept(self, note: bytes) -> int | None:
        try:
            verified = self._policy.tlog.verify(note)
        except InvalidSignature as error:
            wanted = f"signed by the keys of {self._policy.origin}"
            raise Finding("checkpoint", str(error), wanted, [Exhibit("checkpoint", note)]) from error
        size = verified.checkpoint.size
        if size < max(1, self._policy.minimum_size):
            raise Refused("rollback", f"{size} entries", f"at least the policy's {self._policy.minimum_size}")
        return verified.quorum_time


def log_signed(policy: Policy, note: bytes) -> Checkpoint:
    """Return the checkpoint of a note that every listed key of the policy's log signed."""
    parsed = Note.parse(note)
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != policy.origin:
        raise Refused("log origin", checkpoint.origin, policy.origin)
    signed = parsed.verify(policy.tlog.logs)
    missing = [key.key_id.hex() for key in policy.tlog.logs if key not in signed]
    if missing:
        raise Refused("log keys", f"no signature by {', '.join(missing)}", "every listed key of the log")
    return checkpoint


def check_continues(
    files: Files, checkpoint: Checkpoint, note: bytes, before: bytes, *, rollback: bool
) -> None:
    """Return if the tree of ``checkpoint`` continues that of the signed note ``before``, else ``Finding``.

    rollback: whether a smaller checkpoint is a finding; if not it only cannot be compared, and is refused
    """
    old = Checkpoint.parse(Note.parse(before).text)
    exhibits = (Exhibit("checkpoint", note), Exhibit("remembered", before))
    if checkpoint.size < old.size:
        if not rollback:
            raise Refused("checkpoint at hand", f"{old.size} entries", f"at most {checkpoint.size}")
        raise Finding(
            "rollback", f"{checkpoint.size} entries", f"at least the {old.size} seen before", exhibits
        )
    if checkpoint.size == old.size:
        if checkpoint.root != old.root:
            raise Finding("fork", f"root {checkpoint.root.hex()}", f"root {old.root.hex()}", exhibits)
        return
    if old.size == 0:
        return
    try:
        path = HashTree(checkpoint.size, files).consistency_path(old.size)
        verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, path)
    except (InvalidProof, Malformed) as error:
        wanted = f"a tree that continues root {old.root.hex()} of {old.size} entries"
        raise Finding("fork", str(error), wanted, exhibits) from error
