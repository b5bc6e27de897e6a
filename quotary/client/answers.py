"""What comes back from an enclave that was judged: answers, held to their receipts while they arrive."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from quotary.attestation.document import AttestationDocument
from quotary.client.disk import write_new
from quotary.client.files import EvidenceFile, verdict_with, verify_receipt
from quotary.client.ratchet import SessionClient
from quotary.client.receipt import Exchange, Receipt, verify_exchange
from quotary.client.sealed import ResponseOpener
from quotary.client.verdict import Trail, Verdict
from quotary.client.ways import KeysetChanged
from quotary.errors import CannotTell, Malformed, QuotaryError, Refused, Rejected
from quotary.statements.keyset import CHANNEL

CHAT = "/v1/chat/completions"
# Where prompts go: what is answered here without a receipt is rejected.
ANSWERS = frozenset({CHAT, "/v1/completions", "/api/v1/chat/completions"})
# An event of a streamed answer without the service's name and its text, and the text that must fit into one
# frame with them: so the lengths of shorter ones are not seen.
EVENT_LENGTH, TEXT_LENGTH = 183, 24


@dataclass(frozen=True, slots=True)
class Attested:
    """A machine that was judged, and what it was judged by.

    elapsed: reading of the clock when it was judged
    session: the session of the channel that is open with it, where the client wants one
    """

    document: bytes
    bundle: bytes
    nonce: bytes
    verdict: Verdict
    elapsed: float
    session: "Session"

    @property
    def channel(self) -> bytes:
        """The key that prompts are sealed to, 1216 bytes."""
        keys = [key.public for key in self.verdict.keyset.of_role(CHANNEL) if key.alg == "x-wing"]
        if not keys:
            raise Refused("channel key", "a keyset without one", "an X-Wing key")
        return keys[0]

    def file(self, receipt: bytes | None) -> EvidenceFile:
        """Give what is worth keeping: the document without the bundle that it showed, and the one judged."""
        document = replace(AttestationDocument.parse(self.document), bundle=None).encode()
        return EvidenceFile(document, self.bundle, self.nonce, receipt, self.verdict.judged_at)


class Session:
    """At most one session with one attested machine; its requests go out one after the other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: SessionClient | None = None


@dataclass(slots=True)
class Reply:
    """An answer that arrives through the channel.

    chunks:   the body; iterating to the end verifies the authenticated end and the receipt
    receipt:  set when the end has been verified, if there was one
    verdict:  with the receipt's checks once it has been verified
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    verdict: Verdict
    receipt: Receipt | None = None
    file: EvidenceFile | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of a verified machine, with a verified receipt."""

    text: str
    body: Mapping[str, object]
    receipt: Receipt
    verdict: Verdict
    file: EvidenceFile

    def save(self, path: str | Path) -> None:
        """Keep the evidence of this answer in a new file; ``quotary verify`` judges it at its time."""
        write_new(Path(path), self.file.encode())


def until_head(opener: ResponseOpener, chunks: Iterator[bytes]) -> bytes:
    for chunk in chunks:
        data = opener.feed(chunk)
        if opener.head is not None:
            return data
    opener.close()
    raise Malformed("the sealed answer ended before its head")


def body_of(
    reply: Reply,
    opener: ResponseOpener,
    first: bytes,
    rest: Iterator[bytes],
    attested: Attested,
    sent: Exchange,
    path: str,
) -> Iterator[bytes]:
    """Hand over the body, and at its end verify that it was the end, and the receipt."""
    response = first
    if first:
        yield first
    for chunk in rest:
        data = opener.feed(chunk)
        if data:
            response += data
            yield data
    opener.close()
    if opener.receipt is None:
        if path in ANSWERS and reply.status == 200:
            raise Rejected("receipt", "an answer without one", "a signed receipt")
        return
    trail = Trail(list(attested.verdict.checks))
    receipt = verify_receipt(opener.receipt, attested.verdict, trail)
    with trail.step("receipt", "this very exchange", "what this client sent and received"):
        verify_exchange(receipt, replace(sent, response=response, chains=opener.chains))
        trail.held("receipt", "request, response and frames", "this very exchange", "sent and received bytes")
    reply.receipt, reply.verdict = receipt, verdict_with(attested.verdict, trail)
    reply.file = attested.file(opener.receipt)


def refused_outside(status: int, body: bytes) -> None:
    """Turn an answer outside the channel, which anybody on the path could have made, into an error."""
    text = error_text(body)
    if status == 422:
        raise KeysetChanged(f"the enclave answered 422: {text}")
    raise CannotTell(f"the enclave answered {status}: {text}")


def error_text(body: bytes) -> str:
    """Take the message out of an error in OpenAI's shape; only printable text comes out."""
    try:
        found = parse_answer(body).get("error")
    except QuotaryError:
        return "no reason given"
    message = found.get("message") if isinstance(found, dict) else None
    text = message if isinstance(message, str) else "no reason given"
    return "".join(letter for letter in text[:500] if letter.isprintable())


def parse_answer(body: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("the answer is not JSON") from error
    if not isinstance(found, dict):
        raise Malformed("the answer is not a JSON object")
    return found


def text_of(body: Mapping[str, object]) -> str:
    try:
        choices = cast("Sequence[Mapping[str, Mapping[str, object]]]", body["choices"])
        return str(choices[0]["message"]["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise Malformed("the answer has no message") from error
