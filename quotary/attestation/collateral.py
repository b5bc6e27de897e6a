"""The vendor's documents beside a quote: TCB info, QE identity, revocation lists, and the chains that sign
them.

A verdict depends on collateral and time, so both are kept with it (design section 6). ``Collateral.parse``
reads the nine text members that Intel's and others' tools exchange; ``verify_collateral`` gives the documents
or raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.attestation.certificates import (
    Certificate,
    RevocationList,
    parse_chain,
    require_within,
    verify_chain,
    verify_p256,
)
from quotary.attestation.intel_json import QEIdentityDocument, TCBInfo
from quotary.attestation.roots import Root
from quotary.canonical import hexbytes
from quotary.errors import Malformed, Rejected

MEMBERS = (
    "pck_crl",
    "pck_crl_issuer_chain",
    "qe_identity",
    "qe_identity_issuer_chain",
    "qe_identity_signature",
    "root_ca_crl",
    "tcb_info",
    "tcb_info_issuer_chain",
    "tcb_info_signature",
)
TCB_SIGNING_NAME = "Intel SGX TCB Signing"


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """One signed JSON document: its exact text, 64 bytes r || s, and the chain signer, root."""

    text: str
    signature: bytes
    chain: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Collateral:
    """Collateral that is well formed and not yet believed.

    pck_crl_chain: the PCK CA that issued the list, and the root
    """

    tcb_info: SignedDocument
    qe_identity: SignedDocument
    root_crl: RevocationList
    pck_crl: RevocationList
    pck_crl_chain: tuple[Certificate, ...]

    @classmethod
    def parse(cls, members: Mapping[str, str]) -> "Collateral":
        """Read exactly ``MEMBERS``: JSON and PEM as text, signatures and lists in lower-case hex."""
        if set(members) != set(MEMBERS):
            odd = sorted(set(members) ^ set(MEMBERS))
            raise Malformed(f"collateral has not exactly its nine members: {odd[0]!r}")
        # The vendor has one signer for both documents, whose chain is then written twice and read once.
        texts = {members["tcb_info_issuer_chain"], members["qe_identity_issuer_chain"]}
        chains = {text: parse_chain(text.encode(), 2) for text in texts}
        return cls(
            _document(members, "tcb_info", chains),
            _document(members, "qe_identity", chains),
            RevocationList.parse(_hex(members["root_ca_crl"])),
            RevocationList.parse(_hex(members["pck_crl"])),
            parse_chain(members["pck_crl_issuer_chain"].encode(), 2),
        )

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every certificate in it, for the check that refuses simulated evidence on sight."""
        return (*self.tcb_info.chain, *self.qe_identity.chain, *self.pck_crl_chain)


@dataclass(frozen=True, slots=True)
class VerifiedCollateral:
    """Collateral that the root's owner signed and that is in date."""

    tcb_info: TCBInfo
    qe_identity: QEIdentityDocument
    root_crl: RevocationList
    pck_crl: RevocationList

    @property
    def evaluation_number(self) -> int:
        """The older of the two documents decides."""
        return min(self.tcb_info.evaluation_number, self.qe_identity.evaluation_number)


def verify_collateral(collateral: Collateral, root: Root, now: datetime, tee: str) -> VerifiedCollateral:
    """Believe collateral for ``TDX`` or ``SGX``, or raise ``Rejected`` naming the document that fails.

    1. The root signed its own revocation list, which is in date.
    2. The PCK CA's chain ends in the root, is not revoked, and signed its list, which is in date.
    3. TCB info and QE identity are signed over their exact text by a TCB signer of the root, not revoked.
    4. Both are in date.
    """
    root_certificate = collateral.pck_crl_chain[-1]
    verify_chain("pck ca chain", collateral.pck_crl_chain, root.fingerprint, now)
    collateral.root_crl.verify("root crl", root_certificate, now)
    collateral.root_crl.refuse("pck ca revocation", collateral.pck_crl_chain[0])
    collateral.pck_crl.verify("pck crl", collateral.pck_crl_chain[0], now)
    _verify_document("tcb info", collateral.tcb_info, collateral.root_crl, root, now)
    _verify_document("qe identity", collateral.qe_identity, collateral.root_crl, root, now)
    tcb_info = TCBInfo.parse(collateral.tcb_info.text, tee)
    qe_identity = QEIdentityDocument.parse(collateral.qe_identity.text, tee)
    require_within("tcb info date", tcb_info.issued, now, tcb_info.next_update)
    require_within("qe identity date", qe_identity.issued, now, qe_identity.next_update)
    return VerifiedCollateral(tcb_info, qe_identity, collateral.root_crl, collateral.pck_crl)


def _verify_document(
    what: str, document: SignedDocument, root_crl: RevocationList, root: Root, now: datetime
) -> None:
    signer = document.chain[0]
    verify_chain(f"{what} chain", document.chain, root.fingerprint, now)
    root_crl.refuse(f"{what} signer revocation", signer)
    # A root issues CAs too; neither they nor a certificate for another use may sign these documents.
    if signer.is_ca or not (root.simulated or signer.common_name == TCB_SIGNING_NAME):
        raise Rejected(f"{what} signer", signer.subject_text, TCB_SIGNING_NAME)
    verify_p256(f"{what} signature", signer.key, document.signature, document.text.encode())


def _document(
    members: Mapping[str, str], name: str, chains: Mapping[str, tuple[Certificate, ...]]
) -> SignedDocument:
    signature = hexbytes(members[f"{name}_signature"], 64)
    return SignedDocument(members[name], signature, chains[members[f"{name}_issuer_chain"]])


def _hex(text: str) -> bytes:
    return hexbytes(text, len(text) // 2)
