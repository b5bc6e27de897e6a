"""Quotes of a simulated TDX platform: version 4, byte for byte what hardware would send.

Layout: Intel TDX DCAP Quoting Library API, appendix A.3 (header 48, TD report body 584, signature section).
The tables below are this package's own; a test parses what they write with the verifier's table and with
dcap-qvl.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from simulator.collateral import (
    QE_ATTRIBUTES,
    QE_ISV_PROD_ID,
    QE_ISV_SVN,
    QE_MRSIGNER,
    make_collateral,
    raw_signature,
)
from simulator.pki import PKI, issue_pck
from simulator.tcb import TCB, Publication

VERSION, KEY_TYPE_P256, TEE_TDX = 4, 2, 0x81
QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERTIFICATION_QE_REPORT, CERTIFICATION_PCK_CHAIN = 6, 5
HEADER_LENGTH, BODY_LENGTH, QE_REPORT_LENGTH = 48, 584, 384

TD_ATTRIBUTES = bytes.fromhex("0000001000000000")  # bit 28 SEPT_VE_DISABLE alone: no debug
XFAM = bytes.fromhex("e702060000000000")
MR_SEAM = hashlib.sha384(b"quotary simulator: TDX module\n").digest()


@dataclass(frozen=True, slots=True)
class Registers:
    """What a TD of ours has been measured as: 48 bytes each; nobody but the launcher makes one."""

    mrtd: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    mr_config_id: bytes = bytes(48)


class Platform:
    """One simulated machine between two starts: its TCB level, attestation key and quoting enclave's
    report."""

    def __init__(self, pki: PKI, tcb: TCB, publication: Publication, now: datetime) -> None:
        self._tcb = tcb
        self._attestation_key = ec.generate_private_key(ec.SECP256R1())
        certificate = issue_pck(pki, tcb.sgx_tcb_svn, tcb.pce_svn, now)
        self._certification = _certification(
            pki,
            self._attestation_key,
            certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
            tcb,
        )
        self.collateral: Mapping[str, str] = make_collateral(pki, publication, now)

    def quote(self, registers: Registers, report_data: bytes) -> bytes:
        """Sign what was measured and 64 bytes of the caller's."""
        signed = _header() + _body(registers, self._tcb, report_data)
        signature = raw_signature(self._attestation_key, signed)
        section = signature + _point(self._attestation_key) + self._certification
        return signed + struct.pack("<I", len(section)) + section


def _header() -> bytes:
    head = struct.pack("<HHIHH", VERSION, KEY_TYPE_P256, TEE_TDX, 0, 0)
    return _joined(((head, 12), (QE_VENDOR_ID, 16), (bytes(20), 20)), HEADER_LENGTH)


def _body(registers: Registers, tcb: TCB, report_data: bytes) -> bytes:
    fields = (
        (tcb.tee_tcb_svn, 16),
        (MR_SEAM, 48),
        (bytes(48), 48),  # mr_signer_seam: zero is the vendor's production signer
        (bytes(8), 8),  # seam_attributes
        (TD_ATTRIBUTES, 8),
        (XFAM, 8),
        (registers.mrtd, 48),
        (registers.mr_config_id, 48),
        (bytes(48), 48),  # mr_owner
        (bytes(48), 48),  # mr_owner_config
        (registers.rtmr0, 48),
        (registers.rtmr1, 48),
        (registers.rtmr2, 48),
        (registers.rtmr3, 48),
        (report_data, 64),
    )
    return _joined(fields, BODY_LENGTH)


def _certification(pki: PKI, attestation_key: ec.EllipticCurvePrivateKey, leaf_pem: str, tcb: TCB) -> bytes:
    """Certification data of type 6: the QE's report, signed by the PCK, and the PCK's chain (type 5)."""
    authentication = bytes(range(32))
    bound = hashlib.sha256(_point(attestation_key) + authentication).digest() + bytes(32)
    report = _qe_report(tcb, bound)
    chain = (leaf_pem + pki.platform_ca.pem + pki.root.pem).encode("ascii") + b"\x00"
    inner = (
        report
        + raw_signature(pki.pck_key, report)
        + struct.pack("<H", len(authentication))
        + authentication
        + struct.pack("<HI", CERTIFICATION_PCK_CHAIN, len(chain))
        + chain
    )
    return struct.pack("<HI", CERTIFICATION_QE_REPORT, len(inner)) + inner


def _qe_report(tcb: TCB, report_data: bytes) -> bytes:
    fields = (
        (tcb.sgx_tcb_svn, 16),  # cpu_svn
        (bytes(4), 4),  # misc_select
        (bytes(28), 28),  # reserved, isv_ext_prod_id
        (QE_ATTRIBUTES, 16),
        (hashlib.sha256(b"quotary simulator: quoting enclave\n").digest(), 32),  # mr_enclave
        (bytes(32), 32),
        (QE_MRSIGNER, 32),
        (bytes(96), 96),  # reserved, config_id
        (struct.pack("<HHH", QE_ISV_PROD_ID, QE_ISV_SVN, 0), 6),
        (bytes(58), 58),  # reserved, isv_family_id
        (report_data, 64),
    )
    return _joined(fields, QE_REPORT_LENGTH)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _joined(fields: tuple[tuple[bytes, int], ...], length: int) -> bytes:
    for value, wanted in fields:
        assert len(value) == wanted
    data = b"".join(value for value, _ in fields)
    assert len(data) == length
    return data
