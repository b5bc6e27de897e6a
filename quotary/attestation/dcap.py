"""What TDX and SGX quotes share: the quoting enclave's report, the signature section, the PCK certificate.

Intel TDX DCAP Quoting Library API, appendix 3 ("Quote Format", versions 4 and 5), and Intel SGX PCK
Certificate and CRL Profile specification. Offsets in bytes, integers little endian, signatures r || s big
endian.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from quotary.attestation import der
from quotary.attestation.certificates import Certificate, parse_chain, verify_chain, verify_p256
from quotary.attestation.collateral import VerifiedCollateral
from quotary.attestation.intel_json import QEIdentityDocument
from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.roots import Root
from quotary.errors import Malformed, Rejected

ECDSA_P256 = 2
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
QE_REPORT_CERTIFICATION = 6
PCK_CHAIN_CERTIFICATION = 5

# Intel SDM volume 3D, table 38-21 (REPORT).
SGX_REPORT = Layout(
    "QE report",
    384,
    fields(
        ("cpu_svn", 0, 16),
        ("misc_select", 16, 4),
        ("reserved1", 20, 12),
        ("isv_ext_prod_id", 32, 16),
        ("attributes", 48, 16),
        ("mr_enclave", 64, 32),
        ("reserved2", 96, 32),
        ("mr_signer", 128, 32),
        ("reserved3", 160, 32),
        ("config_id", 192, 64),
        ("isv_prod_id", 256, 2),
        ("isv_svn", 258, 2),
        ("config_svn", 260, 2),
        ("reserved4", 262, 42),
        ("isv_family_id", 304, 16),
        ("report_data", 320, 64),
    ),
)
# Quote signature data of version 3 is this and ``QE_HEAD``, not nested in another certification.
SIGNATURE_HEAD_3 = Layout(
    "quote signature, version 3", 128, fields(("signature", 0, 64), ("attestation_key", 64, 64))
)
# Quote signature data of version 4 and 5, up to the certification data of the QE report.
SIGNATURE_HEAD = Layout(
    "quote signature",
    134,
    fields(
        ("signature", 0, 64),
        ("attestation_key", 64, 64),
        ("certification_type", 128, 2),
        ("certification_length", 130, 4),
    ),
)
QE_HEAD = Layout(
    "QE certification data",
    450,
    fields(("report", 0, 384), ("report_signature", 384, 64), ("auth_length", 448, 2)),
)
CHAIN_HEAD = Layout("PCK certification data", 6, fields(("type", 0, 2), ("length", 2, 4)))

# 1.2.840.113741.1.13.1, Intel's SGX extension of a PCK certificate; its parts are this OID and one more
# number.
PCK_EXTENSION = "1.2.840.113741.1.13.1"
_PCK_OID = bytes.fromhex("2a864886f84d010d01")


@dataclass(frozen=True, slots=True)
class SignatureSection:
    """Everything behind a quote's body.

    signature:           64 bytes over header and body, by ``attestation_key``
    attestation_key:     64 bytes x || y, P-256
    qe_report:           384 bytes (``SGX_REPORT``), signed by the PCK certificate's key
    qe_report_signature: 64 bytes
    qe_auth:             bytes that the QE report hashes together with the attestation key
    pck_chain:           leaf, PCK CA, root
    """

    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_report_signature: bytes
    qe_auth: bytes
    pck_chain: tuple[Certificate, ...]

    @classmethod
    def parse(cls, data: bytes) -> "SignatureSection":
        """Read exactly these bytes; both certification types are checked although nothing signs them."""
        head = SIGNATURE_HEAD.read(data[: SIGNATURE_HEAD.length])
        certified = data[SIGNATURE_HEAD.length :]
        _require_type(head["certification_type"], QE_REPORT_CERTIFICATION)
        _require_length("QE certification data", certified, head["certification_length"])
        return _section(head, certified)

    @classmethod
    def parse_3(cls, data: bytes) -> "SignatureSection":
        """Read exactly these bytes of a version 3 quote."""
        head = SIGNATURE_HEAD_3.read(data[: SIGNATURE_HEAD_3.length])
        return _section(head, data[SIGNATURE_HEAD_3.length :])


@dataclass(frozen=True, slots=True)
class PCKExtension:
    """What Intel wrote about the machine into its PCK certificate.

    ppid:        16 bytes, identity of the processor package
    components:  16 bytes, the SVN of each SGX TCB component
    pce_svn:     SVN of the provisioning certification enclave
    pce_id:      2 bytes;  fmspc: 6 bytes (family, model, stepping, platform type, SKU)
    instance_id: 16 bytes, identity of a multi-package platform, or None
    """

    ppid: bytes
    components: bytes
    pce_svn: int
    pce_id: bytes
    fmspc: bytes
    instance_id: bytes | None

    @classmethod
    def parse(cls, certificate: Certificate) -> "PCKExtension":
        """Read the extension of a PCK leaf; a certificate without it is ``Malformed``."""
        value = certificate.extensions.get(PCK_EXTENSION, b"")
        outer = der.items(value)
        if [tag for tag, _ in outer] != [der.SEQUENCE]:
            raise Malformed("PCK certificate has no SGX extension")
        parts = der.members(outer[0][1])
        part = _numbered(parts, _PCK_OID)
        tcb_tag, tcb_content = part(2)
        if tcb_tag != der.SEQUENCE:
            raise Malformed("PCK certificate's TCB is not a sequence")
        tcb = _numbered(der.members(tcb_content), _PCK_OID + b"\x02")
        has_instance = _PCK_OID + b"\x06" in parts
        return cls(
            der.octets(part(1), 16),
            bytes(der.integer(tcb(number), 255) for number in range(1, 17)),
            der.integer(tcb(17), 65535),
            der.octets(part(3), 2),
            der.octets(part(4), 6),
            der.octets(part(6), 16) if has_instance else None,
        )


def attestation_public_key(section: SignatureSection) -> ec.EllipticCurvePublicKey:
    """Read the attestation key as a point on P-256, or raise ``Rejected`` (check ``attestation key``)."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + section.attestation_key)
    except ValueError as error:
        raise Rejected("attestation key", "not a point on the curve", "a P-256 key") from error


def verify_qe_report(section: SignatureSection, identity: QEIdentityDocument) -> dict[str, bytes]:
    """Require that Intel's quoting enclave vouches for the attestation key; give the QE report's fields.

    Checks, in order: ``qe report signature`` by the PCK key, ``qe report data`` over the attestation key,
    ``qe identity`` against the collateral, ``qe debug``.
    """
    verify_p256(
        "qe report signature", section.pck_chain[0].key, section.qe_report_signature, section.qe_report
    )
    report = SGX_REPORT.read(section.qe_report)
    bound = hashlib.sha256(section.attestation_key + section.qe_auth).digest() + bytes(32)
    if not hmac.compare_digest(report["report_data"], bound):
        raise Rejected("qe report data", report["report_data"].hex(), bound.hex())
    _require_identity(report, identity)
    if report["attributes"][0] & 2:
        raise Rejected("qe debug", "a debuggable quoting enclave", "one in production mode")
    return report


def verify_pck(section: SignatureSection, documents: VerifiedCollateral, root: Root, now: datetime) -> None:
    """Require a PCK chain in force under ``root`` that no revocation list names."""
    leaf, authority, _ = section.pck_chain
    verify_chain("pck chain", section.pck_chain, root.fingerprint, now)
    documents.root_crl.refuse("pck ca revocation", authority)
    documents.pck_crl.refuse("pck revocation", leaf)
    if leaf.is_ca:
        raise Rejected("pck chain", f"leaf {leaf.subject_text} is a CA", "an end certificate")


def require_machine(machine: PCKExtension, documents: VerifiedCollateral) -> None:
    """Require that the TCB info is about this machine (checks ``fmspc``, ``pce id``)."""
    info = documents.tcb_info
    if machine.fmspc != info.fmspc:
        raise Rejected("fmspc", machine.fmspc.hex(), f"{info.fmspc.hex()} of the TCB info")
    if machine.pce_id != info.pce_id:
        raise Rejected("pce id", machine.pce_id.hex(), f"{info.pce_id.hex()} of the TCB info")


def masked(value: bytes, mask: bytes) -> bytes:
    """Keep the bits of ``value`` that ``mask``, of the same length, has."""
    return bytes(a & b for a, b in zip(value, mask, strict=True))


def _section(head: dict[str, bytes], certified: bytes) -> SignatureSection:
    qe = QE_HEAD.read(certified[: QE_HEAD.length])
    auth_end = QE_HEAD.length + little(qe["auth_length"])
    chain = CHAIN_HEAD.read(certified[auth_end : auth_end + CHAIN_HEAD.length])
    pem = certified[auth_end + CHAIN_HEAD.length :]
    _require_type(chain["type"], PCK_CHAIN_CERTIFICATION)
    _require_length("PCK chain", pem, chain["length"])
    return SignatureSection(
        head["signature"],
        head["attestation_key"],
        qe["report"],
        qe["report_signature"],
        certified[QE_HEAD.length : auth_end],
        parse_chain(pem, 3),
    )


def _require_identity(report: dict[str, bytes], identity: QEIdentityDocument) -> None:
    misc = masked(report["misc_select"], identity.misc_select_mask)
    attributes = masked(report["attributes"], identity.attributes_mask)
    rows = (
        ("mrsigner", report["mr_signer"], identity.signer),
        ("isvprodid", report["isv_prod_id"], identity.isv_prod_id.to_bytes(2, "little")),
        ("miscselect", misc, identity.misc_select),
        ("attributes", attributes, identity.attributes),
    )
    for name, found, wanted in rows:
        if found != wanted:
            raise Rejected("qe identity", f"{name} {found.hex()}", wanted.hex())


def _require_type(found: bytes, wanted: int) -> None:
    if little(found) != wanted:
        raise Malformed(f"certification data is of type {little(found)}, {wanted} is needed")


def _require_length(what: str, data: bytes, said: bytes) -> None:
    if len(data) != little(said):
        raise Malformed(f"{what} has {len(data)} bytes and says {little(said)}")


def _numbered(found: dict[bytes, tuple[int, bytes]], prefix: bytes) -> Callable[[int], tuple[int, bytes]]:
    def part(number: int) -> tuple[int, bytes]:
        if prefix + bytes([number]) not in found:
            raise Malformed(f"PCK certificate lacks part {number} of its SGX extension")
        return found[prefix + bytes([number])]

    return part
