"""The evidence file: what a client keeps of one answer (docs/formats/evidence-file.md).

Receipt, attestation document (with its collateral), bundle, nonce and time in one canonical document. It is
judged at
its own time: a revocation that came later does not change what was true when the prompt was sent, and the
verdict says at which time it holds. The prompt and the answer are not in it.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from quotary.attestation.document import AttestationDocument
from quotary.canonical import Fields, b64, canonical, parse_canonical, time_text
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.receipt import Receipt, verify_origin, verify_signature
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail, Verdict
from quotary.client.verify import judge
from quotary.errors import Rejected
from quotary.statements.keyset import RECEIPT

MAX_FILE = 16 << 20


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One judgement's inputs.

    document:  canonical bytes of the attestation document
    bundle:    canonical bytes of the bundle
    nonce:     32 bytes that the client sent, or None if it sent none
    receipt:   canonical bytes of the receipt, or None where nothing was asked yet
    judged_at: the latest that it could be when the client judged it
    """

    document: bytes
    bundle: bytes
    nonce: bytes | None
    receipt: bytes | None
    judged_at: datetime

    @classmethod
    def parse(cls, data: bytes) -> "EvidenceFile":
        """Read an evidence file; its parts are read when it is judged."""
        fields = Fields(parse_canonical(data, MAX_FILE), "evidence file")
        fields.integer("v", 1, 1)
        fields.choice("type", "quotary/evidence/v1")
        found = cls(
            fields.base64("document", limit=MAX_FILE),
            fields.base64("bundle", limit=MAX_FILE),
            fields.optional("nonce", lambda name: fields.hexbytes(name, 32)),
            fields.optional("receipt", lambda name: fields.base64(name, limit=MAX_FILE)),
            fields.time("judged_at"),
        )
        fields.done()
        return found

    def encode(self) -> bytes:
        """Write the file."""
        document: dict[str, object] = {
            "v": 1,
            "type": "quotary/evidence/v1",
            "document": b64(self.document),
            "bundle": b64(self.bundle),
            "judged_at": time_text(self.judged_at.replace(microsecond=0)),
        }
        if self.nonce is not None:
            document["nonce"] = self.nonce.hex()
        if self.receipt is not None:
            document["receipt"] = b64(self.receipt)
        return canonical(document)


def verify_file(file: EvidenceFile, policy: Policy, trail: Trail | None = None) -> Verdict:
    """Judge kept evidence at its own time, and its receipt against it."""
    trail = Trail() if trail is None else trail
    document = AttestationDocument.parse(file.document)
    # Nothing that this machine has accepted since then speaks against what was true at that time.
    clock, memory = FixedClock(file.judged_at), ProcessMemory()
    verdict = judge(document, file.nonce, file.bundle, policy, memory, clock, trail)
    if file.receipt is None:
        trail.not_checked("receipt", "the file holds none", "a signed receipt", "the keyset")
    else:
        verify_receipt(file.receipt, verdict, trail)
    return verdict_with(verdict, trail)


def verify_receipt(data: bytes, verdict: Verdict, trail: Trail) -> Receipt:
    """Hold a receipt against the machine that was judged: its key, its code, its weights, its time."""
    keys = {key.id: key.public for key in verdict.keyset.of_role(RECEIPT) if key.alg == "ed25519"}
    wanted = "signed by the attested keyset, for the judged code and weights"
    anchor = f"keyset {verdict.keyset.digest.hex()}"
    with trail.step("receipt", wanted, anchor):
        receipt = Receipt.parse(data)
        verify_signature(receipt, keys)
        verify_origin(
            receipt,
            service=verdict.service,
            measurement=verdict.measurement_id,
            keyset=verdict.keyset.digest,
            weights=verdict.predicate.weights_sha256,
        )
        window = (verdict.keyset.not_before.timestamp(), verdict.keyset.not_after.timestamp())
        if not window[0] <= receipt.served.start <= receipt.served.end:
            raise Rejected("receipt", f"served from {receipt.served.start}", f"{window[0]:.0f} or later")
        if receipt.origin.log != verdict.origin:
            raise Rejected("receipt", f"log {receipt.origin.log}", verdict.origin)
        said = f"receipt {receipt.served.receipt_id}, complete: {str(receipt.served.complete).lower()}"
        trail.held("receipt", said, wanted, anchor)
    return receipt


def verdict_with(verdict: Verdict, trail: Trail) -> Verdict:
    """Give the verdict with the checks that were made after it."""
    return replace(verdict, checks=tuple(trail.checks))
