"""A TEE vendor with keys of its own: quotes and collateral in Intel's formats, with one thing wrong at a time.

``Recipe()`` makes good evidence; each of its fields spoils one thing. The organisation is a made-up one, so that
tests can also be the vendor whose root production pins.
"""

import copy
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from quotary.attestation import dcap, tdx
from quotary.attestation.roots import Root

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
FMSPC = bytes.fromhex("90c06f000000")
PPID, INSTANCE = b"\x11" * 16, b"\x22" * 16
SGX_SVN = bytes([4, 4, 2, 2, 4, 1, 0, 5] + [0] * 8)
TDX_SVN = bytes([7, 1, 4] + [0] * 13)
OID = "1.2.840.113741.1.13.1"


def tcb_info() -> dict:
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    levels = [level(5, "UpToDate", "2026-08-12T00:00:00Z"), level(3, "OutOfDate", "2025-08-13T00:00:00Z")]
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": "2026-11-20T00:00:00Z",
        "nextUpdate": "2026-12-20T00:00:00Z",
        "fmspc": FMSPC.hex().upper(),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 21,
        "tdxModule": module,
        "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": levels}],
        "tcbLevels": [
            platform_level(4, 13, 4, "UpToDate", "2026-08-12T00:00:00Z"),
            platform_level(3, 13, 3, "OutOfDate", "2025-08-13T00:00:00Z", ["INTEL-SA-00001"]),
        ],
    }


def level(svn: int, status: str, date: str, advisories: list[str] | None = None) -> dict:
    found = {"tcb": {"isvsvn": svn}, "tcbDate": date, "tcbStatus": status}
    return found | ({} if advisories is None else {"advisoryIDs": advisories})


def platform_level(
    sgx: int, pce: int, microcode: int, status: str, date: str, advisories: list[str] | None = None
) -> dict:
    components = [{"svn": sgx, "category": "BIOS", "type": "Early Microcode Update"}, *[{"svn": 0}] * 15]
    found = level(0, status, date, advisories)
    tdx_components = [{"svn": 5}, {"svn": 1}, {"svn": microcode}, *[{"svn": 0}] * 13]
    found["tcb"] = {"sgxtcbcomponents": components, "pcesvn": pce, "tdxtcbcomponents": tdx_components}
    return found


def qe_identity() -> dict:
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": "2026-11-20T00:00:00Z",
        "nextUpdate": "2026-12-20T00:00:00Z",
        "tcbEvaluationDataNumber": 20,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
        "mrsigner": "DC" * 32,
        "isvprodid": 2,
        "tcbLevels": [
            level(4, "UpToDate", "2026-08-12T00:00:00Z"),
            level(2, "OutOfDate", "2025-08-13T00:00:00Z", ["INTEL-SA-00002"]),
        ],
    }


def unchanged(value: dict) -> None:
    """Spoil nothing."""


@dataclass(frozen=True)
class Recipe:
    version: int = 4
    body_type: int = 3
    header: Mapping[str, bytes] = field(default_factory=dict)
    body: Mapping[str, bytes] = field(default_factory=dict)
    qe: Mapping[str, bytes] = field(default_factory=dict)
    auth: bytes = bytes(range(32))
    qe_report_data: bytes | None = None
    attestation_point: bytes | None = None
    quote_key: str = "attestation"
    qe_key: str = "pck"
    tcb_info: Callable[[dict], object] = unchanged
    qe_identity: Callable[[dict], object] = unchanged
    tcb_info_text: str | None = None
    tcb_info_key: str = "signing"
    qe_identity_key: str = "qe_signing"
    extension: bytes | None = None
    extension_parts: Mapping[int, bytes | None] = field(default_factory=dict)
    certificate: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)
    crl: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    quote: bytes
    collateral: dict[str, str]
    root: bytes

    def roots(self, platform: str = "tdx") -> tuple[Root, ...]:
        return (Root(platform, self.root, "a vendor of our own"),)


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if name == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if name == "p384" else ec.SECP256R1())


def make(recipe: Recipe) -> Evidence:
    """Follow a recipe."""
    chain = certificates(recipe)
    quote = make_quote(recipe, chain)
    return Evidence(
        quote,
        make_collateral(recipe, chain),
        hashlib.sha256(chain["root"].public_bytes(serialization.Encoding.DER)).digest(),
    )


def make_quote(recipe: Recipe, chain: Mapping[str, x509.Certificate]) -> bytes:
    header = {
        "version": recipe.version.to_bytes(2, "little"),
        "attestation_key_type": b"\2\0",
        "tee_type": b"\x81\0\0\0",
        "qe_vendor_id": dcap.INTEL_QE_VENDOR,
        "user_data": bytes(20),
    }
    layout = tdx.TD_BODY_10 if recipe.version == 4 or recipe.body_type == 2 else tdx.TD_BODY_15
    body = {part.name: bytes(part.length) for part in layout.fields}
    body |= {
        "tee_tcb_svn": TDX_SVN,
        "td_attributes": bytes.fromhex("0000001000000000"),
        "xfam": bytes.fromhex("e702060000000000"),
        "mr_td": b"\x77" * 48,
    }
    if "tee_tcb_svn2" in body:
        body["tee_tcb_svn2"] = TDX_SVN
    signed = tdx.HEADER.write(header | dict(recipe.header))
    if recipe.version == 5:
        signed += struct.pack("<HI", recipe.body_type, layout.length)
    signed += layout.write(body | dict(recipe.body))
    section = raw_signature(recipe.quote_key, signed) + signature_tail(recipe, chain)
    return signed + struct.pack("<I", len(section)) + section


def signature_tail(recipe: Recipe, chain: Mapping[str, x509.Certificate]) -> bytes:
    point = recipe.attestation_point or public_point("attestation")
    bound = hashlib.sha256(point + recipe.auth).digest() + bytes(32)
    report = {part.name: bytes(part.length) for part in dcap.SGX_REPORT.fields if not part.reserved}
    report |= {
        "attributes": b"\x11" + bytes(7) + b"\xe7" + bytes(7),
        "mr_signer": b"\xdc" * 32,
        "isv_prod_id": b"\2\0",
        "isv_svn": b"\4\0",
    }
    report |= {"report_data": recipe.qe_report_data or bound} | dict(recipe.qe)
    qe_report = dcap.SGX_REPORT.write(report)
    pem = "".join(text(chain[name]) for name in ("pck", "ca", "root")).encode() + b"\0"
    inner = (
        qe_report
        + raw_signature(recipe.qe_key, qe_report)
        + struct.pack("<H", len(recipe.auth))
        + recipe.auth
    )
    inner += struct.pack("<HI", 5, len(pem)) + pem
    return point + struct.pack("<HI", 6, len(inner)) + inner


def make_collateral(recipe: Recipe, chain: Mapping[str, x509.Certificate]) -> dict[str, str]:
    info, identity = copy.deepcopy(tcb_info()), copy.deepcopy(qe_identity())
    recipe.tcb_info(info)
    recipe.qe_identity(identity)
    info_text = recipe.tcb_info_text or json.dumps(info, separators=(",", ":"))
    identity_text = json.dumps(identity, separators=(",", ":"))
    return {
        "tcb_info": info_text,
        "tcb_info_signature": raw_signature(recipe.tcb_info_key, info_text.encode()).hex(),
        "tcb_info_issuer_chain": text(chain["signing"]) + text(chain["root"]),
        "qe_identity": identity_text,
        "qe_identity_issuer_chain": text(chain["qe_signing"]) + text(chain["root"]),
        "qe_identity_signature": raw_signature(recipe.qe_identity_key, identity_text.encode()).hex(),
        "pck_crl_issuer_chain": text(chain["ca"]) + text(chain["root"]),
        "root_ca_crl": revocation_list(recipe, "root", chain, ("ca", "signing", "qe_signing")).hex(),
        "pck_crl": revocation_list(recipe, "ca", chain, ("pck",)).hex(),
    }


def revocation_list(
    recipe: Recipe, issuer: str, chain: Mapping[str, x509.Certificate], under: tuple[str, ...]
) -> bytes:
    said = {
        "start": NOW - DAY,
        "end": NOW + 30 * DAY,
        "key": issuer,
        "name": chain[issuer].subject,
        "critical": False,
    } | dict(recipe.crl.get(issuer, {}))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(said["name"])
        .last_update(said["start"])
        .next_update(said["end"])
    )
    builder = builder.add_extension(x509.CRLNumber(1), critical=said["critical"])
    for name in under:
        if recipe.revoked.get(name):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(chain[name].serial_number)
                .revocation_date(NOW - DAY)
                .build()
            )
    return builder.sign(key(said["key"]), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def certificates(recipe: Recipe) -> dict[str, x509.Certificate]:
    found: dict[str, x509.Certificate] = {}
    rows = (
        ("root", "root", "Our SGX Root CA", True, 1),
        ("ca", "root", "Our SGX PCK Platform CA", True, 0),
        ("signing", "root", "Intel SGX TCB Signing", False, None),
        ("pck", "ca", "Our PCK Certificate", False, None),
        # Intel has one signer for both documents; here each has its own, so that each can be spoiled alone.
        ("qe_signing", "root", "Intel SGX TCB Signing", False, None),
    )
    for serial, (name, issuer, common, is_ca, path) in enumerate(rows, 1):
        said = {
            "name": common,
            "organisation": "Our Vendor",
            "ca": is_ca,
            "path": path,
            "start": NOW - 100 * DAY,
            "end": NOW + 100 * DAY,
            "key": name,
            "signed_by": issuer,
            "serial": serial,
            "usage_sign": is_ca,
            "usage_crl": is_ca,
            "marked": False,
            "critical": None,
            "constraints": True,
        } | dict(recipe.certificate.get(name, {}))
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, said["organisation"])]
        if said["name"]:
            names.append(x509.NameAttribute(NameOID.COMMON_NAME, said["name"]))
        subject = x509.Name(names)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(found[issuer].subject if issuer in found else subject)
        )
        builder = (
            builder.public_key(key(said["key"]).public_key())
            .serial_number(said["serial"])
            .not_valid_before(said["start"])
            .not_valid_after(said["end"])
        )
        if said["constraints"]:
            builder = builder.add_extension(
                x509.BasicConstraints(ca=said["ca"], path_length=said["path"] if said["ca"] else None),
                critical=True,
            )
            builder = builder.add_extension(
                x509.KeyUsage(
                    True, False, False, False, False, said["usage_sign"], said["usage_crl"], False, False
                ),
                critical=True,
            )
        if said["marked"]:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.7411.1"), b"\5\0"),
                critical=False,
            )
        if said["critical"]:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(said["critical"]), b"\5\0"), critical=True
            )
        if name == "pck":
            value = sgx_extension(recipe.extension_parts) if recipe.extension is None else recipe.extension
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), value), critical=False
            )
        found[name] = builder.sign(key(said["signed_by"]), hashes.SHA256())
    return found


def sgx_tcb() -> bytes:
    svns = {number: integer(SGX_SVN[number - 1]) for number in range(1, 17)}
    return named_parts(svns | {17: integer(13), 18: octets(SGX_SVN)}, 2)


def sgx_extension(changed: Mapping[int, bytes | None]) -> bytes:
    parts = {
        1: octets(PPID),
        2: sgx_tcb(),
        3: octets(bytes(2)),
        4: octets(FMSPC),
        5: b"\x0a\1\1",
        6: octets(INSTANCE),
    } | dict(changed)
    return named_parts({number: value for number, value in parts.items() if value is not None})


def named_parts(parts: Mapping[int, bytes], *prefix: int) -> bytes:
    base = bytes.fromhex("2a864886f84d010d01") + bytes(prefix)
    return tlv(
        0x30,
        b"".join(tlv(0x30, tlv(0x06, base + bytes([number])) + value) for number, value in parts.items()),
    )


def tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    return (
        bytes([tag, 0x82]) + length.to_bytes(2, "big") + content
        if length > 0xFF
        else bytes([tag, 0x81, length]) + content
    )


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: bytes) -> bytes:
    return tlv(0x04, value)


def text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def public_point(name: str) -> bytes:
    return (
        key(name)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]
    )


def raw_signature(name: str, message: bytes) -> bytes:
    r, s = decode_dss_signature(key(name).sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
