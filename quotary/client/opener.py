"""Entries opened and signatures verified ahead of a replay, in processes of their own
(docs/decisions/0011-processes-of-an-audit.md).

A process decides nothing. It says which signatures held, and what stands in the entries; whatever it did not
say (a key that was new, a signature that does not hold, an entry too many) is done where F1 asks for it. So
order, outcomes and findings are those of one process.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from quotary.client.carried import Carried
from quotary.errors import CannotTell, InvalidSignature, QuotaryError
from quotary.garbage import collect_rarely
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, Signature, verify
from quotary.statements.opened import Opened, open_entry
from quotary.statements.state_entry import is_reserved

if TYPE_CHECKING:
    from quotary.client.replay import Batch

LEAST = 2048
"""Entries below which starting processes takes longer than they save."""

_AHEAD_BATCHES = 20
_AHEAD_BYTES = 1 << 24
_KEPT_BYTES = 1 << 25
_KEYS = 1024

_Answer = tuple[Carried, frozenset[int]]
_Held = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A batch that a process works on, with the keys (32 bytes, by key id) that it was given."""

    batch: "Batch"
    keys: Mapping[str, bytes]
    future: "Future[_Answer]"


@dataclass(frozen=True, slots=True)
class _Kept:
    """An entry that was opened ahead; ``held`` are those of its signatures that were verified, too."""

    opened: Opened
    held: tuple[bytes, ...]
    length: int


class Opener:
    """Opens the entries of one replay after another. Use as a context manager.

    jobs:  number of processes beside this one; 1 for none, everything happens here
    least: number of entries from which on they are started
    """

    def __init__(self, jobs: int, least: int = LEAST) -> None:
        self._jobs = jobs
        self._least = least
        self._pool: ProcessPoolExecutor | None = None
        self._keys: Mapping[str, bytes] = {}
        self.forget()

    def __enter__(self) -> "Opener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def forget(self) -> None:
        """Drop all that was opened ahead; it is opened again when it is asked for."""
        self._kept: dict[int, _Kept] = {}
        self._held: dict[bytes, _Held] = {}
        self._length = 0

    def settle(self, index: int) -> None:
        """Drop what was opened of the entries before ``index``."""
        # All at once: to take the first out of a dictionary again and again is to walk over the gaps.
        for settled in list(takewhile(index.__gt__, self._kept)):
            kept = self._kept.pop(settled)
            for signature in kept.held:
                self._held.pop(signature, None)
            self._length -= kept.length

    def opened(self, index: int, entry: bytes) -> Opened:
        """Give the entry at an index of the log, opened."""
        kept = self._kept.get(index)
        return open_entry(entry) if kept is None else kept.opened

    def verify(self, key: bytes, signature: Signature, payload: bytes) -> None:
        """Return if the key (32 bytes) signed the payload, else raise ``InvalidSignature``."""
        if self._held.get(signature.sig) == (key, payload):
            return
        verify(key, signature, payload)
        self._learn({signature.keyid: key})

    def ahead(self, batches: "Iterator[Batch]", size: int) -> "Iterator[Batch]":
        """Give the batches of ``size`` entries as they come, each after it was opened.

        What ends the batches is raised after the last one before it. A process that dies is ``CannotTell``.
        """
        self.forget()  # what a run before left may be of another log
        if self._jobs == 1 or size < self._least:
            yield from batches
            return
        pending: deque[_Asked] = deque()
        ended: QuotaryError | None = None
        more = True
        # Without keys there is nothing to verify with: the first batch shows some.
        ready = bool(self._keys)
        while more or pending:
            while more and _room(pending) and (ready or not pending):
                try:
                    batch = next(batches, None)
                except QuotaryError as error:
                    batch, ended = None, error
                more = batch is not None
                if batch is not None:
                    pending.append(self._ask(batch))
            if pending:
                asked = pending.popleft()
                self._keep(asked)
                ready = True
                yield asked.batch
        if ended is not None:
            raise ended

    def _ask(self, batch: "Batch") -> _Asked:
        if self._pool is None:
            # Not fork: a child must not have the store's open file and its lock.
            self._pool = ProcessPoolExecutor(self._jobs, get_context("spawn"), _begin)
        try:
            return _Asked(batch, self._keys, self._pool.submit(_work, batch.entries, self._keys))
        except BrokenProcessPool as error:
            raise self._broken(batch) from error

    def _keep(self, asked: _Asked) -> None:
        """Take over what a process found, as far as there is room."""
        batch = asked.batch
        try:
            found, held = asked.future.result()
        except BrokenProcessPool as error:
            raise self._broken(batch) from error
        for offset, opened in found.opened():
            entry = batch.entries[offset]
            if opened.statement is not None and isinstance(opened.statement.predicate, Delegation):
                self._learn(opened.statement.predicate.keys)
            if self._length + len(entry) > _KEPT_BYTES:
                continue
            names = _held(opened.envelope, asked.keys) if offset in held else {}
            self._kept[batch.start + offset] = _Kept(opened, tuple(names), len(entry))
            self._held.update(names)
            self._length += len(entry)

    def _learn(self, keys: Mapping[str, bytes]) -> None:
        """Give keys to the processes from now on; whether a key counts is for F1 to say."""
        if not keys.items() <= self._keys.items():
            self._keys = dict(list({**self._keys, **keys}.items())[-_KEYS:])

    def _broken(self, batch: "Batch") -> CannotTell:
        self.close()
        return CannotTell(
            f"a process of this audit died; entry {batch.start} and those behind it were not audited",
            next_command="run it again, it goes on from there; with --jobs 1 it needs no other process",
        )


def _room(pending: deque[_Asked]) -> bool:
    length = sum(len(asked.batch.bundle) for asked in pending)
    return len(pending) < _AHEAD_BATCHES and length < _AHEAD_BYTES


def _held(envelope: Envelope | None, keys: Mapping[str, bytes]) -> dict[bytes, _Held]:
    """Say for each signature (64 bytes) the very key and payload that it held for."""
    assert envelope is not None  # it had signatures
    return {item.sig: (keys[item.keyid], envelope.payload) for item in envelope.signatures}


def _begin() -> None:
    """Start as a process of the pool: it ends when the one that asks it ends, however that was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None
    collect_rarely()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _work(entries: Iterable[bytes], keys: Mapping[str, bytes]) -> _Answer:
    """Open entries (None for reserved records), and say of which every signature holds under ``keys``."""
    found = tuple(None if is_reserved(entry) else open_entry(entry) for entry in entries)
    held = frozenset(
        offset
        for offset, opened in enumerate(found)
        if opened is not None and opened.envelope is not None and _all_hold(opened.envelope, keys)
    )
    return Carried.of(found), held


def _all_hold(envelope: Envelope, keys: Mapping[str, bytes]) -> bool:
    try:
        for signature in envelope.signatures:
            verify(keys[signature.keyid], signature, envelope.payload)
    except (KeyError, InvalidSignature):
        return False  # F1 decides which of the two it was, and says so
    return True
