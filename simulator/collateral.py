"""The signed documents that a DCAP verifier needs beside a quote, in the nine members that Intel's service
has.

TCB info v3 and QE identity v2 (Intel PCS API v4), both signed over their exact text by the TCB signing key,
two revocation lists in DER hex, and the issuers' chains in PEM. All but the root's list live 30 days from the
moment they are made; the simulator makes them anew at each start.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from quotary.canonical import time_text
from simulator.pki import FMSPC, PCE_ID, PKI, revocation_list, whole_second
from simulator.tcb import TCB, Publication

LIFE = timedelta(days=30)
ROOT_CRL_LIFE = timedelta(days=365)

# The simulated quoting enclave: the identity that the QE report shows and the QE identity document expects.
QE_MRSIGNER = hashlib.sha256(b"quotary simulator: quoting enclave's signer\n").digest()
QE_ATTRIBUTES = bytes.fromhex("1100000000000000e700000000000000")
QE_ISV_PROD_ID = 2
QE_ISV_SVN = 4

_LEVEL_DATE = "2026-08-12T00:00:00Z"
_OLD_LEVEL_DATE = "2025-08-13T00:00:00Z"


def make_collateral(pki: PKI, publication: Publication, now: datetime) -> Mapping[str, str]:
    """Sign a fresh set; the keys are those of ``vectors/collateral``, the values as Intel's service gives
    them."""
    now = whole_second(now)
    tcb_info = _text(_tcb_info(publication, now))
    qe_identity = _text(_qe_identity(publication, now))
    tcb_chain = pki.tcb_signing.pem + pki.root.pem
    return {
        "pck_crl_issuer_chain": pki.platform_ca.pem + pki.root.pem,
        "root_ca_crl": revocation_list(pki.root, now, ROOT_CRL_LIFE, ()).hex(),
        "pck_crl": revocation_list(pki.platform_ca, now, LIFE, publication.revoked).hex(),
        "tcb_info_issuer_chain": tcb_chain,
        "tcb_info": tcb_info,
        "tcb_info_signature": raw_signature(pki.tcb_signing.key, tcb_info.encode("ascii")).hex(),
        "qe_identity_issuer_chain": tcb_chain,
        "qe_identity": qe_identity,
        "qe_identity_signature": raw_signature(pki.tcb_signing.key, qe_identity.encode("ascii")).hex(),
    }


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign with ECDSA P-256 and SHA-256; 64 bytes, r then s, big endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _text(document: Mapping[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _header(kind: str, version: int, publication: Publication, now: datetime) -> dict[str, object]:
    return {
        "id": kind,
        "version": version,
        "issueDate": time_text(now),
        "nextUpdate": time_text(now + LIFE),
        "tcbEvaluationDataNumber": publication.evaluation_number,
    }


def _tcb_info(publication: Publication, now: datetime) -> Mapping[str, object]:
    current = publication.current
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    old = {"tcbDate": _OLD_LEVEL_DATE, "tcbStatus": "OutOfDate", "advisoryIDs": list(publication.advisories)}
    fresh = {"tcbDate": _LEVEL_DATE, "tcbStatus": "UpToDate"}
    module_levels = _levels({"isvsvn": current.tee_tcb_svn[0]}, fresh, {"isvsvn": 0}, old)
    return {
        **_header("TDX", 3, publication, now),
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
        "tdxModule": module,
        "tdxModuleIdentities": [
            {"id": f"TDX_{current.tee_tcb_svn[1]:02X}", **module, "tcbLevels": module_levels}
        ],
        "tcbLevels": _levels(_components(current), fresh, _components(TCB(bytes(16), bytes(16), 0)), old),
    }


def _levels(
    current: Mapping[str, object],
    fresh: Mapping[str, object],
    lowest: Mapping[str, object],
    old: Mapping[str, object],
) -> Sequence[Mapping[str, object]]:
    return [{"tcb": current, **fresh}, {"tcb": lowest, **old}]


def _components(tcb: TCB) -> Mapping[str, object]:
    return {
        "sgxtcbcomponents": [{"svn": svn} for svn in tcb.sgx_tcb_svn],
        "pcesvn": tcb.pce_svn,
        "tdxtcbcomponents": [{"svn": svn} for svn in tcb.tee_tcb_svn],
    }


def _qe_identity(publication: Publication, now: datetime) -> Mapping[str, object]:
    return {
        **_header("TD_QE", 2, publication, now),
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": QE_ISV_PROD_ID,
        "tcbLevels": [{"tcb": {"isvsvn": QE_ISV_SVN}, "tcbDate": _LEVEL_DATE, "tcbStatus": "UpToDate"}],
    }
