"""The signer: a process of its own that holds the log's keys and signs one history only.

It answers on a unix socket (``registry/wire.py``; docs/formats/signer.md), remembers its last signed head
durably before it answers, and signs a larger head only with a consistency proof from that one, and none
after a final one. So whoever takes over a worker or the sequencer can stop the log, and never fork it.

Its keys are read at the start and again on ``reload``; a round waits for that as for any other answer.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from quotary.canonical import Fields, b64, unb64
from quotary.errors import InvalidProof, InvalidSignature, Malformed, QuotaryError
from quotary.statements.cose import CoseHead
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.merkle import verify_consistency
from quotary.tlog.note import ED25519, Note
from quotary.token.errors import TokenRefused, TokenUnavailable
from registry import flush, wire
from registry.conversations import converse
from registry.errors import FlushFailed, SignerRefused
from registry.identity import LogKeys, load_log_keys
from registry.lock import only_one
from registry.memory import NAME, SignedHead, keep, recall
from registry.promise import MAX_PROMISES, BatchPromise, Promise, sign_promise

log = logging.getLogger("registry")

MAX_PROOF = 63


class Signer:
    """The keys, the memory, and one lock around both; ``load`` reads the keys that sign.

    ``give_up`` is called where the disk did not confirm what was remembered; nothing is signed after that.
    """

    def __init__(
        self,
        origin: str,
        load: Callable[[], LogKeys],
        memory: Path,
        now: Callable[[], datetime],
        give_up: Callable[[], object] = lambda: None,
    ) -> None:
        self._origin = origin
        self._load = load
        self._keys = load()
        self._memory = memory
        self._now = now
        self._lock = threading.Lock()
        self._last = recall(memory)
        self._give_up = give_up
        self.failed = flush.recall(memory)

    def answer(self, message: object) -> dict[str, object]:
        """Answer one request; a refusal is an answer with the member ``error``."""
        try:
            fields = Fields(message, "request")
            op = fields.choice("op", "batch-promise", "cose", "head", "keys", "promises", "reload", "sign")
            if op == "head":
                found = self._head
            elif op == "keys":
                found = self._vkeys
            elif op == "reload":
                found = self._reload
            elif op == "sign":
                found = self._sign_request(fields)
            elif op == "cose":
                found = self._cose_request(fields)
            elif op == "batch-promise":
                found = self._batch_request(fields)
            else:
                found = self._promises_request(fields)
            fields.done()
            return found()
        except SignerRefused as error:
            log.error(
                "signer.refused", extra={"check": error.check, "found": error.found, "wanted": error.wanted}
            )
            return {"error": "refused", "check": error.check, "found": error.found, "wanted": error.wanted}
        except (TokenUnavailable, TokenRefused) as error:
            log.error("signer.token", extra={"why": str(error)})
            return {"error": "unavailable", "detail": str(error)}
        except FlushFailed as error:
            self._give_up()
            log.error("signer.disk", extra={"why": str(error)})
            return {"error": "unavailable", "detail": str(error)}
        except QuotaryError as error:
            return {"error": "malformed", "detail": str(error)}

    def _head(self) -> dict[str, object]:
        return {"size": self._last.size, "root": self._last.root.hex()}

    def _vkeys(self) -> dict[str, object]:
        return {"vkeys": [key.verifier.vkey() for key in self._keys.signing]}

    def _reload(self) -> dict[str, object]:
        loaded = self._load()
        with self._lock:
            self._keys = loaded
        log.info("signer.keys", extra={"ids": [key.verifier.key_id.hex() for key in loaded.signing]})
        return self._vkeys()

    def _sign_request(self, fields: Fields) -> Callable[[], dict[str, object]]:
        checkpoint = Checkpoint(self._origin, fields.integer("size", 1), fields.hexbytes("root", 32))
        proof = []
        for item in fields.items("proof", MAX_PROOF):
            if not isinstance(item, str):
                raise Malformed("request.proof holds something else than text")
            proof.append(unb64(item, length=32))
        final = fields.has("final") and fields.boolean("final")
        return lambda: self._sign(checkpoint, proof, final)

    def _sign(self, checkpoint: Checkpoint, proof: list[bytes], final: bool) -> dict[str, object]:
        with self._lock:
            if self.failed is not None:
                raise self.failed
            if checkpoint.size == self._last.size and checkpoint.root == self._last.root:
                return {"note": b64(self._last.note)}
            self._check(checkpoint, proof)
            # A clock that was set back must not make the log's own times go back.
            at = max(int(self._now().timestamp()), self._last.at)
            note = sign_checkpoint(checkpoint, self._keys.signing, at)
            head = SignedHead(checkpoint.size, checkpoint.root, note, final, at)
            self._remember(head)
        log.info("signer.signed", extra={"size": checkpoint.size, "root": checkpoint.root.hex()})
        return {"note": b64(note)}

    def _remember(self, head: SignedHead) -> None:
        try:
            keep(self._memory, head)
        except FlushFailed as error:
            self.failed = error
            flush.remember(self._memory, error)
            raise
        self._last = head

    def _check(self, checkpoint: Checkpoint, proof: list[bytes]) -> None:
        last = self._last
        if checkpoint.size <= last.size:
            found = f"size {checkpoint.size}, root {checkpoint.root.hex()}"
            raise SignerRefused("signed head", found, f"larger than {last.size}, root {last.root.hex()}")
        if last.final:
            raise SignerRefused("end of the log", f"size {checkpoint.size}", f"the final size {last.size}")
        if last.size == 0:
            return
        try:
            verify_consistency(last.size, checkpoint.size, last.root, checkpoint.root, proof)
        except (InvalidProof, Malformed) as error:
            wanted = f"a proof that size {checkpoint.size} continues the signed {last.size}"
            raise SignerRefused("consistency", str(error), wanted) from error

    def _cose_request(self, fields: Fields) -> Callable[[], dict[str, object]]:
        note = Note.parse(fields.base64("note"))
        return lambda: self._cose(note)

    def _cose(self, note: Note) -> dict[str, object]:
        """Say of a head in COSE's words what this very key has said of it in a note, and nothing else."""
        names = {(line.name, line.key_id) for line in note.signatures}
        keys = [key for key in self._keys.signing if key.alg == ED25519]
        signed = [key for key in keys if (key.name, key.verifier.key_id) in names]
        try:
            key = signed[-1]
            note.verify([key.verifier])
        except (IndexError, InvalidSignature) as error:
            raise SignerRefused("signed note", "one without this signer's line", "its own note") from error
        checkpoint = Checkpoint.parse(note.text)
        head = CoseHead.of(checkpoint.origin, checkpoint.size, key.verifier.public)
        assert not isinstance(key.private, MLDSA44PrivateKey)  # its type byte says so
        signature = key.private.sign(head.signed_bytes(checkpoint.root))
        return {"key": head.key.hex(), "signature": b64(signature)}

    def _promises_request(self, fields: Fields) -> Callable[[], dict[str, object]]:
        promises = [self._promise(item) for item in fields.items("promises", MAX_PROMISES, low=1)]
        return lambda: {"promises": [b64(sign_promise(item, self._keys.promise)) for item in promises]}

    def _batch_request(self, fields: Fields) -> Callable[[], dict[str, object]]:
        count, root = fields.integer("count", 1), fields.hexbytes("root", 32)
        accepted, deadline = fields.integer("accepted", 1), fields.integer("deadline", 1)
        promise = BatchPromise(self._origin, count, root, accepted, deadline)
        return lambda: {"promise": b64(sign_promise(promise, self._keys.promise))}

    def _promise(self, value: object) -> Promise:
        fields = Fields(value, "promise")
        leaf = fields.hexbytes("leaf_hash", 32)
        found = Promise(self._origin, leaf, fields.integer("accepted", 1), fields.integer("deadline", 1))
        fields.done()
        return found


def run_signer(folder: Path, origin: str, socket_path: Path, inherited: int | None = None) -> None:
    """Serve until SIGTERM, and end what is being answered; only one signer may run over one key folder.

    inherited: descriptor of a listening socket that outlives this process, so that no request is refused
    """
    stop, stopped = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: stop.send(b"x"))
    with only_signer(folder), closing(stop), closing(stopped):
        memory = folder / NAME
        load, now = (lambda: load_log_keys(folder, origin)), (lambda: datetime.now(UTC))
        signer = Signer(origin, load, memory, now, lambda: stop.send(b"x"))
        if signer.failed is not None:
            raise signer.failed
        listener = wire.listen(socket_path) if inherited is None else socket.socket(fileno=inherited)
        with closing(listener):
            log.info("signer.ready", extra={"socket": str(socket_path), "origin": origin})
            converse(lambda connection: serve(connection, signer), listener, stopped)
        if signer.failed is not None:
            raise signer.failed


def serve(connection: socket.socket, signer: Signer) -> None:
    """Answer what comes on one connection."""
    try:
        while (message := wire.receive(connection)) is not None:
            wire.send(connection, signer.answer(message))
    except (OSError, Malformed) as error:
        log.warning("signer.connection", extra={"why": str(error)})


def only_signer(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a key folder, or raise ``Usage`` where a signer runs over it."""
    return only_one(folder / "signer.lock", "signer")
