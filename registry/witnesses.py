"""Rounds of cosignatures: show a signed checkpoint to every witness of the policy (c2sp.org/tlog-witness,
client).

Witnesses are asked in parallel, and a slow one is not waited for once the others are enough; one that answers
409 is asked again with a proof from the size it names. A witness that has seen a larger log than we signed,
or another one, means a restored backup or a fork: ``RolledBack``. A status code is not evidence, though: the
claim counts only when the witness shows a checkpoint under one of the log's own keys that our log does not
continue. A witness that claims without showing one is faulty: it counts as absent, loudly, and the others
decide whether there is a quorum.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from quotary.canonical import b64
from quotary.errors import CannotTell, InvalidProof, InvalidSignature, Malformed, QuotaryError
from quotary.net.transport import Limits, Reply, Request, Transport
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import verify_consistency
from quotary.tlog.note import Note, VerifierKey
from quotary.tlog.witness import SIZE_TYPE
from registry.errors import RolledBack
from registry.panel import MOST_WAIT_SECONDS, Panel
from registry.store import Signed

log = logging.getLogger("registry")

LIMITS = Limits(connect_seconds=2.0, read_seconds=5.0, total_seconds=8.0, length=65_536)
# Before the first signature nobody is hurried: an answer that comes late could be the one that forbids it.
GUARD_SECONDS = 10.0
STATES = ("cosigned", "unknown-log", "silent", "slow", "refused", "stale", "faulty")
NEXT = "quotary registry recover --from-mirror DIR|URL"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one witness said.

    url:   its submission prefix
    lines: its cosignature lines, not verified yet; empty where it gave none
    size:  the newest size that it has seen; None where it did not say, or what it said is not believed
    state: one of ``STATES``
    """

    url: str
    lines: tuple[bytes, ...]
    size: int | None
    state: str = "silent"


Prove = Callable[[int], Sequence[bytes]]
Enough = Callable[[Sequence[Answer]], bool]


def never(answers: Sequence[Answer]) -> bool:
    """Every answer that comes in time is wanted."""
    return False


class Rounds:
    """Remembers between rounds how far each witness is.

    urls: submission prefixes of the policy's witnesses
    keys: the log's own verifier keys; only what one of them signed is evidence against this log
    """

    def __init__(self, transport: Transport, urls: Iterable[str], keys: Iterable[VerifierKey]) -> None:
        self._transport = transport
        self._sizes: dict[str, int] = {}
        self.follow(urls, keys)

    def follow(self, urls: Iterable[str], keys: Iterable[VerifierKey]) -> None:
        """Ask other witnesses from now on, for a log with these keys."""
        self._keys = tuple(keys)
        self._urls = tuple(dict.fromkeys(url for url in urls if url))
        self._panel: Panel[Answer] = Panel(self._urls)

    def collect(
        self, signed: Signed, prove: Prove, enough: Enough = never, seconds: float = MOST_WAIT_SECONDS
    ) -> tuple[Answer, ...]:
        """Show a checkpoint to every witness.

        prove:   gives the consistency path from an old size (1 or more) to ``signed.size``
        enough:  whether these answers make a quorum, so that the slow ones are not waited for
        seconds: how long to wait where they do not; who has not answered by then is ``slow``
        Raises ``RolledBack`` where a witness proves that it has seen a larger log or another one.
        """
        return self._all(signed.note, lambda url: self._exchange(url, signed, prove), enough, seconds)

    def idle(self) -> bool:
        """Say whether no witness is still busy with an earlier round."""
        return self._panel.idle()

    def settle(self) -> None:
        """Raise ``RolledBack`` where a slow witness has proven it since its round ended."""
        self._panel.settle()

    def check(self, signed: Signed, prove: Prove) -> tuple[Answer, ...]:
        """Hear of at least one witness that it is not ahead of ``signed``; ``CannotTell`` where none
        answers.
        """
        answers = self.collect(signed, prove, seconds=GUARD_SECONDS)
        self._require_one(answers)
        return answers

    def check_unknown(self, origin: str) -> None:
        """Hear of at least one witness that it has never seen this log (its monitoring path answers 404)."""
        asked = self._all(origin.encode(), lambda url: self._look_up(url, origin), never, GUARD_SECONDS)
        self._require_one(asked)

    def newest(self, origin: str) -> dict[str, Checkpoint | None]:
        """Fetch what each witness has seen under this log's keys; None where it has seen nothing.

        A witness that does not answer, or shows what no key of the log signed, is not in the result.
        """
        found: dict[str, Checkpoint | None] = {}
        for url in self._urls:
            try:
                found[url] = self._newest(url, origin)
            except QuotaryError as error:
                log.warning("witness.silent", extra={"witness": url, "why": str(error)})
        return found

    def _require_one(self, answers: tuple[Answer, ...]) -> None:
        if answers and all(answer.size is None for answer in answers):
            raise CannotTell(
                f"none of {len(answers)} witnesses answers, so nobody can say whether this log went back",
                next_command="quotary registry witness list",
            )

    def _all(
        self, subject: bytes, ask: Callable[[str], Answer], enough: Enough, seconds: float
    ) -> tuple[Answer, ...]:
        answers = self._panel.ask(subject, lambda url: self._unless_silent(ask, url), enough, seconds)
        return tuple(answers.get(url) or self._slow(url) for url in self._urls)

    def _slow(self, url: str) -> Answer:
        log.warning("witness.slow", extra={"witness": url})
        return Answer(url, (), None, "slow")

    def _unless_silent(self, ask: Callable[[str], Answer], url: str) -> Answer:
        try:
            return ask(url)
        except RolledBack:
            raise
        except QuotaryError as error:
            log.warning("witness.silent", extra={"witness": url, "why": str(error)})
            return Answer(url, (), None)

    def _look_up(self, url: str, origin: str) -> Answer:
        found = self._newest(url, origin)
        if found is None:
            return Answer(url, (), 0, "unknown-log")
        if found.size > 0:
            wanted = "none: nothing was signed"
            raise RolledBack(f"size at witness {url}", str(found.size), wanted, next_command=NEXT)
        return Answer(url, (), 0, "cosigned")

    def _exchange(self, url: str, signed: Signed, prove: Prove) -> Answer:
        old = self._sizes.get(url, signed.size)
        reply = self._submit(url, old, signed, prove)
        if reply.status == 409 and (size := _size(reply)) <= signed.size:
            self._sizes[url] = size
            reply = self._submit(url, size, signed, prove)
        if reply.status in (409, 422):
            return self._contradicted(url, reply, signed, prove)
        if reply.status != 200:
            log.warning("witness.refused", extra={"witness": url, "status": reply.status})
            return Answer(url, (), None, "refused")
        self._sizes[url] = signed.size
        return Answer(url, tuple(reply.body.splitlines(keepends=True)), signed.size, "cosigned")

    def _contradicted(self, url: str, reply: Reply, signed: Signed, prove: Prove) -> Answer:
        """Ask a witness that claims another history for the checkpoint it claims to have seen.

        Raises ``RolledBack`` where a key of this log signed it and our log does not continue it.
        """
        try:
            found = self._newest(url, Checkpoint.parse(Note.parse(signed.note).text).origin)
        except QuotaryError as error:
            return self._faulty(url, reply, str(error))
        if found is None or found.size == 0:
            return self._faulty(url, reply, "it shows no checkpoint of this log")
        if found.size > signed.size:
            wanted = f"at most {signed.size}"
            raise RolledBack(f"size at witness {url}", str(found.size), wanted, next_command=NEXT)
        try:
            verify_consistency(found.size, signed.size, found.root, signed.root, prove(found.size))
        except InvalidProof as error:
            check, other = f"root of size {found.size} at witness {url}", found.root.hex()
            raise RolledBack(check, other, "ours", next_command=NEXT) from error
        self._sizes[url] = found.size
        return self._faulty(url, reply, f"its newest checkpoint, of size {found.size}, is part of this log")

    def _faulty(self, url: str, reply: Reply, why: str) -> Answer:
        log.error("witness.faulty", extra={"witness": url, "status": reply.status, "why": why})
        return Answer(url, (), None, "faulty")

    def _newest(self, url: str, origin: str) -> Checkpoint | None:
        """Fetch the newest checkpoint that a witness has seen; None where it knows no such log.

        Raises ``InvalidSignature`` unless a key of this log signed it.
        """
        path = hashlib.sha256(origin.encode("utf-8")).hexdigest()
        reply = self._transport.send(Request(f"{url.rstrip('/')}/{path}/checkpoint", limits=LIMITS))
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise CannotTell(f"{url} answers {reply.status} where its newest checkpoint should be")
        note = Note.parse(reply.body)
        if not any(_signed_by(note, key) for key in self._keys):
            raise InvalidSignature(f"no key of {origin} signed the checkpoint that {url} shows")
        found = Checkpoint.parse(note.text)
        if found.origin != origin:
            raise Malformed(f"{url} shows a checkpoint of {found.origin}")
        return found

    def _submit(self, url: str, old: int, signed: Signed, prove: Prove) -> Reply:
        path = prove(old) if 0 < old < signed.size else ()
        lines = [f"old {old}\n", *(b64(digest) + "\n" for digest in path), "\n"]
        body = "".join(lines).encode("ascii") + signed.note
        address = url.rstrip("/") + "/add-checkpoint"
        return self._transport.send(Request(address, "POST", body, limits=LIMITS))


def _signed_by(note: Note, key: VerifierKey) -> bool:
    """Say whether one key signed; a bad line under another key must not hide a good one."""
    try:
        note.verify([key])
    except InvalidSignature:
        return False
    return True


def _size(reply: Reply) -> int:
    text = reply.body.decode("ascii", "replace").removesuffix("\n")
    is_size = reply.headers.get("content-type", "").partition(";")[0].strip() == SIZE_TYPE
    if not is_size or not text.isascii() or not text.isdigit() or str(int(text[:20])) != text:
        raise Malformed("the witness answered 409 without its size")
    return int(text)
