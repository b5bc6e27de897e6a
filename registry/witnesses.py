"""Rounds of cosignatures: show a signed checkpoint to every witness of the policy (c2sp.org/tlog-witness,
client).

Witnesses are asked in parallel; one that answers 409 is asked again with a proof from the size it names. A
witness that has seen a larger log than we signed, or another one, means a restored backup or a fork:
``RolledBack``.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from quotary.canonical import b64
from quotary.errors import CannotTell, Malformed, QuotaryError
from quotary.net.transport import Limits, Reply, Request, Transport
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note
from registry.errors import RolledBack
from registry.store import Signed

log = logging.getLogger("registry")

LIMITS = Limits(connect_seconds=2.0, read_seconds=5.0, total_seconds=8.0, length=65_536)
PARALLEL = 16
SIZE_TYPE = "text/x.tlog.size"
NEXT = "put back the newest backup of this log: one that holds everything it ever signed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one witness said.

    url:   its submission prefix
    lines: its cosignature lines, not verified yet; empty where it gave none
    size:  the newest size that it has seen; None where it did not say
    """

    url: str
    lines: tuple[bytes, ...]
    size: int | None


Prove = Callable[[int], Sequence[bytes]]


class Rounds:
    """Remembers between rounds how far each witness is.

    urls: submission prefixes of the policy's witnesses
    """

    def __init__(self, transport: Transport, urls: Iterable[str]) -> None:
        self._transport = transport
        self._urls = tuple(dict.fromkeys(url for url in urls if url))
        self._sizes: dict[str, int] = {}

    def collect(self, signed: Signed, prove: Prove) -> tuple[Answer, ...]:
        """Show a checkpoint to every witness.

        prove: gives the consistency path from an old size (1 or more) to ``signed.size``
        Raises ``RolledBack`` where a witness is ahead or has another log.
        """
        return self._all(lambda url: self._exchange(url, signed, prove))

    def check(self, signed: Signed, prove: Prove) -> None:
        """Hear of at least one witness that it is not ahead of ``signed``; ``CannotTell`` where none
        answers.
        """
        self._require_one(self.collect(signed, prove))

    def check_unknown(self, origin: str) -> None:
        """Hear of at least one witness that it has never seen this log (its monitoring path answers 404)."""
        self._require_one(self._all(lambda url: self._look_up(url, origin)))

    def _require_one(self, answers: tuple[Answer, ...]) -> None:
        if answers and all(answer.size is None for answer in answers):
            raise CannotTell(
                f"none of {len(answers)} witnesses answers, so nobody can say whether this log went back",
                next_command="quotary registry witness list",
            )

    def _all(self, ask: Callable[[str], Answer]) -> tuple[Answer, ...]:
        if not self._urls:
            return ()
        with ThreadPoolExecutor(min(PARALLEL, len(self._urls))) as pool:
            return tuple(pool.map(lambda url: self._unless_silent(ask, url), self._urls))

    def _unless_silent(self, ask: Callable[[str], Answer], url: str) -> Answer:
        try:
            return ask(url)
        except RolledBack:
            raise
        except QuotaryError as error:
            log.warning("witness.silent", extra={"witness": url, "why": str(error)})
            return Answer(url, (), None)

    def _look_up(self, url: str, origin: str) -> Answer:
        path = hashlib.sha256(origin.encode("utf-8")).hexdigest()
        reply = self._transport.send(Request(f"{url.rstrip('/')}/{path}/checkpoint", limits=LIMITS))
        if reply.status == 404:
            return Answer(url, (), 0)
        if reply.status != 200:
            return Answer(url, (), None)
        size = Checkpoint.parse(Note.parse(reply.body).text).size
        if size > 0:
            raise RolledBack(
                f"size at witness {url}", str(size), "none: nothing was signed", next_command=NEXT
            )
        return Answer(url, (), 0)

    def _exchange(self, url: str, signed: Signed, prove: Prove) -> Answer:
        old = self._sizes.get(url, signed.size)
        reply = self._submit(url, old, signed, prove)
        if reply.status == 409:
            old = self._conflict(url, reply, signed)
            reply = self._submit(url, old, signed, prove)
        if reply.status == 422:
            raise RolledBack(
                f"history at witness {url}",
                "another log than ours",
                f"ours, {old} to {signed.size}",
                next_command=NEXT,
            )
        if reply.status != 200:
            log.warning("witness.refused", extra={"witness": url, "status": reply.status})
            return Answer(url, (), None)
        self._sizes[url] = signed.size
        return Answer(url, tuple(reply.body.splitlines(keepends=True)), signed.size)

    def _submit(self, url: str, old: int, signed: Signed, prove: Prove) -> Reply:
        path = prove(old) if 0 < old < signed.size else ()
        lines = [f"old {old}\n", *(b64(digest) + "\n" for digest in path), "\n"]
        body = "".join(lines).encode("ascii") + signed.note
        address = url.rstrip("/") + "/add-checkpoint"
        return self._transport.send(Request(address, "POST", body, limits=LIMITS))

    def _conflict(self, url: str, reply: Reply, signed: Signed) -> int:
        size = _size(reply)
        if size > signed.size:
            raise RolledBack(f"size at witness {url}", str(size), f"at most {signed.size}", next_command=NEXT)
        self._sizes[url] = size
        return size


def _size(reply: Reply) -> int:
    text = reply.body.decode("ascii", "replace").removesuffix("\n")
    is_size = reply.headers.get("content-type", "").partition(";")[0].strip() == SIZE_TYPE
    if not is_size or not text.isascii() or not text.isdigit() or str(int(text[:20])) != text:
        raise Malformed("the witness answered 409 without its size")
    return int(text)
