"""The published log's proofs as COSE receipts; the signer signs the head once, and the rest is proofs."""

import threading

from quotary.statements.cose import CoseHead, CoseReceipt
from registry.errors import NotPublished
from registry.public import PublicLog, Snapshot
from registry.signing import SignerClient


class CoseProofs:
    """Makes receipts under the newest published head; the signer's answer for it is kept."""

    def __init__(self, public: PublicLog, signer: SignerClient) -> None:
        self._public = public
        self._signer = signer
        self._lock = threading.Lock()
        self._signed: tuple[int, CoseHead, bytes] | None = None

    def inclusion(self, index: int, snapshot: Snapshot) -> bytes:
        """Prove that the entry at ``index`` stands in the published log."""
        proof = self._public.proof(index, snapshot)
        head, signature = self._head(snapshot)
        return CoseReceipt(head, signature, proof.path, index=index).encode()

    def consistency(self, old: int, snapshot: Snapshot) -> bytes:
        """Prove that the published log continues the one of ``old`` entries."""
        if not 1 <= old <= snapshot.size:
            raise NotPublished(f"the checkpoint covers {snapshot.size} entries, not {old}", snapshot.size)
        path = self._public.consistency(old, snapshot.size, snapshot.size)
        head, signature = self._head(snapshot)
        return CoseReceipt(head, signature, path, old=old, root=snapshot.checkpoint.root).encode()

    def _head(self, snapshot: Snapshot) -> tuple[CoseHead, bytes]:
        with self._lock:
            if self._signed is None or self._signed[0] != snapshot.size:
                key, signature = self._signer.cose(snapshot.note)
                self._signed = (
                    snapshot.size,
                    CoseHead(snapshot.checkpoint.origin, snapshot.size, key),
                    signature,
                )
            return self._signed[1:]
