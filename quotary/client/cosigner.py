"""The map auditor: a witness that cosigns a checkpoint only after it re-derived its map root.

Speaks c2sp.org/tlog-witness, so the log asks it like any other witness. Its cosignature says more than that
the log only grew: every statement before it was replayed by F1, and the state entry commits to what came out
(design section 5). A policy that lists it under ``map_auditor`` never accepts another map.
"""

import hashlib
import threading
from collections.abc import Callable
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from quotary.client.audit import Auditor, log_signed
from quotary.client.finding import Finding, keep
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files
from quotary.errors import (
    CannotTell,
    InvalidProof,
    InvalidSignature,
    Malformed,
    NotAuthorised,
    QuotaryError,
    Refused,
)
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.cosignature import cosign
from quotary.tlog.merkle import EMPTY_ROOT
from quotary.tlog.note import Note, SigningKey
from quotary.tlog.witness import MAX_REQUEST, SIZE_TYPE, AddCheckpoint, Conflict, check_growth

REQUEST_SECONDS = 30
TEXT = "text/plain; charset=utf-8"
_COSIGNED = "cosigned"


class Cosigner:
    """One auditor with its key and its memory; it is asked from several threads and answers one by one.

    files:    where it reads what is not published yet (the registry's ``/signed/``)
    findings: folder for what it finds
    """

    def __init__(
        self,
        policy: Policy,
        store: ReplayStore,
        files: Files,
        key: SigningKey,
        now: Callable[[], datetime],
        findings: Path,
    ) -> None:
        self._policy = policy
        self._store = store
        self._files = files
        self._key = key
        self._now = now
        self._findings = findings
        self._auditor = Auditor(policy, store, lambda done, size: None)
        self._lock = threading.Lock()

    def add_checkpoint(self, body: bytes) -> bytes:
        """Give the cosignature line after the audit, or raise.

        1. The log's keys signed the checkpoint. 2. It continues the newest that we cosigned. 3. All that it
        covers was replayed, the map root derived. 4. The memory is on disk before the line leaves.
        """
        request = AddCheckpoint.parse(body)
        try:
            checkpoint = log_signed(self._policy, request.note_bytes)
        except (InvalidSignature, Refused) as error:
            raise NotAuthorised(f"invalid signature: {error}") from error
        with self._lock:
            seen = self._seen()
            if request.old_size > checkpoint.size:
                raise Malformed(f"old size {request.old_size} is beyond the checkpoint's {checkpoint.size}")
            if request.old_size != seen.size:
                raise Conflict(seen.size)
            check_growth(seen, checkpoint, request.proof)
            self._derive(request.note_bytes)
            line = cosign(request.note.text, self._key, int(self._now().timestamp())).encode()
            self._store.keep(_COSIGNED, request.note_bytes + line)
        return line

    def catch_up(self, published: Files, report: Callable[[int, int], None]) -> None:
        """Replay what is published already, before the log asks: a round of witnesses ends after seconds."""
        with self._lock:
            try:
                Auditor(self._policy, self._store, report).derive(published, published.checkpoint())
            except Finding as finding:
                keep(finding, self._policy.origin, self._findings)
                raise
            finally:
                self._auditor = Auditor(self._policy, self._store, lambda done, size: None)

    def newest(self, origin_hash: str) -> bytes | None:
        """Give the newest cosigned checkpoint of the log whose origin has this SHA-256 in hex."""
        if origin_hash != hashlib.sha256(self._policy.origin.encode()).hexdigest():
            return None
        with self._lock:
            return self._store.fact(_COSIGNED)

    def _seen(self) -> Checkpoint:
        note = self._store.fact(_COSIGNED)
        if note is None:
            return Checkpoint(self._policy.origin, 0, EMPTY_ROOT)
        return Checkpoint.parse(Note.parse(note).text)

    def _derive(self, note: bytes) -> None:
        try:
            self._auditor.derive(self._files, note)
        except Finding as finding:
            keep(finding, self._policy.origin, self._findings)
            raise


class CosignServer(ThreadingHTTPServer):
    """The cosigner over HTTP; TLS and the outside world belong in front of it."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], cosigner: Cosigner, report: Callable[[str], None]) -> None:
        super().__init__(address, _Handler)
        self.cosigner = cosigner
        self.report = report


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    server: CosignServer

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/add-checkpoint":
            self._answer(404, b"no such path\n")
        elif not length.isascii() or not length.isdigit() or int(length) > MAX_REQUEST:
            self._answer(413, b"a request has a length of at most 1048576 bytes\n")
        else:
            self._answer(*self._add(self.rfile.read(int(length))))

    def do_GET(self) -> None:
        name, _, rest = self.path.removeprefix("/").partition("/")
        found = self.server.cosigner.newest(name) if rest == "checkpoint" else None
        if self.path == "/healthz":
            self._answer(200, b"ok\n")
        elif found is None:
            self._answer(404, b"no checkpoint of this log was cosigned here\n")
        else:
            self._answer(200, found)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing per request; what matters is reported by name."""

    def _add(self, body: bytes) -> tuple[int, bytes, str]:
        try:
            return 200, self.server.cosigner.add_checkpoint(body), TEXT
        except Conflict as error:
            return 409, f"{error.size}\n".encode(), SIZE_TYPE
        except QuotaryError as error:
            if not isinstance(error, Malformed | NotAuthorised):
                self.server.report(f"not cosigned: {error}")
            return _status(error), f"{error}\n".encode(), TEXT

    def _answer(self, status: int, body: bytes, content_type: str = TEXT) -> None:
        self.close_connection = self.close_connection or status == 413
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _status(error: QuotaryError) -> int:
    """Choose the status of c2sp.org/tlog-witness; a finding is a refusal (403), not another history (422)."""
    if isinstance(error, Malformed):
        return 400
    if isinstance(error, InvalidProof):
        return 422
    return 503 if isinstance(error, CannotTell) else 403
