"""Fetching from a log: bytes that nobody believes yet, under the limits that each kind of answer has.

Everything here is untrusted until ``client.verify`` has judged it. What the services endpoint says is a hint,
to be shown as one; no decision rests on it.
"""

import json
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from quotary.errors import CannotTell, Malformed, NotAuthorised, QuotaryError, Unsupported
from quotary.net.transport import Limits, Reply, Request, Transport
from quotary.statements.cose import MAX_RECEIPT

MAX_BUNDLE = 1 << 20
MAX_NOTE = 1 << 17
MAX_ENTRY = 65_535
MAX_PROBLEM = 1 << 16
MAX_LIST = 4 << 20


class LogClient:
    """One log at one address."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self.url = url.rstrip("/")

    def checkpoint(self) -> bytes:
        """Fetch the newest published checkpoint."""
        return self._get("/checkpoint", MAX_NOTE)

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        """Fetch the bundle of a measurement id; for an unknown one it holds an absence proof instead."""
        return self._get(f"/api/v1/bundles/{quote(service)}/{measurement_id.hex()}", MAX_BUNDLE)

    def entry(self, index: int) -> bytes:
        """Fetch one entry."""
        return self._get(f"/api/v1/entries/{index}", MAX_ENTRY)

    def entry_by_hash(self, leaf_hash: bytes) -> bytes:
        """Fetch one entry by its leaf hash."""
        return self._get(f"/api/v1/entries/by-hash/{leaf_hash.hex()}", MAX_ENTRY)

    def proof(self, name: int | bytes) -> bytes:
        """Fetch the proof (tlog-proof@v1) of an entry by index or leaf hash."""
        return self._get(f"/api/v1/proofs/{name.hex() if isinstance(name, bytes) else name}", MAX_NOTE)

    def cose_inclusion(self, name: int | bytes) -> bytes:
        """Fetch a COSE receipt of an entry's inclusion, by index or leaf hash."""
        shown = name.hex() if isinstance(name, bytes) else name
        return self._get(f"/api/v1/cose/inclusion/{shown}", MAX_RECEIPT)

    def cose_consistency(self, old: int) -> bytes:
        """Fetch a COSE receipt that the published log continues the one of ``old`` entries."""
        return self._get(f"/api/v1/cose/consistency/{old}", MAX_RECEIPT)

    def service(self, name: str) -> Mapping[str, object]:
        """Fetch what the log says of a service: a hint, not proof."""
        return self._object(f"/api/v1/services/{quote(name)}")

    def next_sequence(self, service: str, kind: str) -> int:
        """Fetch the number that the log would accept next: a hint, which a signer reads before signing."""
        numbers = self.service(service).get("next_sequence")
        found = numbers.get(kind) if isinstance(numbers, dict) else None
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise Malformed(f"{self.url} does not say which sequence number comes next")
        return found

    def description(self) -> Mapping[str, object]:
        """Fetch what the log says of itself: a hint, not proof."""
        return self._object("/api/v1/log")

    def search(self, words: str) -> Mapping[str, object]:
        """Fetch what the log finds for some words: a hint, not proof."""
        return self._object(f"/api/v1/search?{urlencode({'q': words})}")

    def post_entry(self, entry: bytes, *, wait: bool) -> Mapping[str, object]:
        """Send an entry; with ``wait`` the log answers when it is published, or when its patience ends."""
        suffix = "?wait=published" if wait else ""
        reply = self._transport.send(
            Request(
                f"{self.url}/api/v1/entries{suffix}",
                "POST",
                entry,
                {"Content-Type": "application/json"},
                Limits(read_seconds=90, total_seconds=120, length=MAX_PROBLEM),
            )
        )
        if reply.status not in (200, 202):
            raise problem(reply, self.url)
        return _object(reply.body, self.url)

    def _get(self, path: str, length: int) -> bytes:
        reply = self._transport.send(Request(self.url + path, limits=Limits(length=length)))
        if reply.status != 200:
            raise problem(reply, self.url + path)
        return reply.body

    def _object(self, path: str) -> Mapping[str, object]:
        return _object(self._get(path, MAX_LIST), self.url + path)


def problem(reply: Reply, url: str) -> QuotaryError:
    """Turn an answer that is not a success into the error that it means for us."""
    detail = f"{url} answered {reply.status}: {_detail(reply)}"
    if reply.status in (401, 403):
        return NotAuthorised(detail)
    if reply.status in (400, 413, 422):
        return Malformed(detail)
    if reply.status == 415:
        return Unsupported(detail)
    return CannotTell(detail)


def _detail(reply: Reply) -> str:
    try:
        document = _object(reply.body, "")
    except Malformed:
        return "no reason given"
    words = [str(document.get(name)) for name in ("title", "detail", "code") if document.get(name)]
    # Text from the network reaches a terminal: one line, nothing that a terminal would obey.
    return "".join(letter for letter in "; ".join(words)[:500] if letter.isprintable()) or "no reason given"


def _object(body: bytes, url: str) -> Mapping[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{url} did not answer with JSON") from error
    if not isinstance(found, dict):
        raise Malformed(f"{url} did not answer with a JSON object")
    return found
