"""AMD with keys of its own: certificates and reports in AMD's formats, with every field at the test's will."""

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from quotary.attestation.amd import Product
from quotary.attestation.layout import Layout
from quotary.attestation.snp import LAYOUTS

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
PSS = padding.PSS(padding.MGF1(SHA384()), padding.PSS.DIGEST_LENGTH)
_SERIALS = itertools.count(1)


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True, slots=True)
class Signer:
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
        ]
    )


def certificate(
    common: str,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    issuer: "Signer | None" = None,
    extensions: dict[str, bytes] | None = None,
    path_length: int | None = None,
    ca: bool = True,
    begin: datetime = BEGIN,
    end: datetime = END,
) -> Signer:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(issuer.certificate.subject if issuer else name(common))
        .public_key(key.public_key())
        .serial_number(next(_SERIALS))
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), True).add_extension(
            usage, True
        )
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
    signing = issuer.key if issuer else key
    assert isinstance(signing, rsa.RSAPrivateKey)
    return Signer(builder.sign(signing, SHA384(), rsa_padding=PSS), key)


def endorsement(
    product: Product, tcb: bytes, hwid: bytes = b"", csp_id: str = "", structure: int | None = None
) -> dict[str, bytes]:
    oid = "1.3.6.1.4.1.3704.1"
    found = {
        f"{oid}.1": bytes([2, 1, product.structure if structure is None else structure]),
        f"{oid}.2": bytes([0x16, len(product.title)]) + product.title.encode(),
    }
    for number, value in zip(product.extensions, tcb, strict=True):
        found[f"{oid}.3.{number}"] = bytes([2, 1, value]) if value < 128 else bytes([2, 2, 0, value])
    if hwid:
        found[f"{oid}.4"] = hwid
    if csp_id:
        found[f"{oid}.5"] = bytes([0x16, len(csp_id)]) + csp_id.encode()
    return found


def revocation_list(
    issuer: Signer, serials: list[int], begin: datetime = BEGIN, end: datetime = END
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(begin)
        .next_update(end)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin).build()
        builder = builder.add_revoked_certificate(revoked)
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    return builder.sign(issuer.key, SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


def report(version: int, key: ec.EllipticCurvePrivateKey, values: dict[str, bytes]) -> bytes:
    """A signed report: fields that are not given are zero, or what a guest in order has."""
    layout: Layout = LAYOUTS[version]
    plain = {field.name: bytes(field.length) for field in layout.fields if not field.reserved}
    plain |= {
        "version": version.to_bytes(4, "little"),
        "signature_algorithm": b"\1\0\0\0",
        "policy": (0x30000).to_bytes(8, "little"),
        "platform_info": (0x20).to_bytes(8, "little"),
    }
    data = layout.write(plain | values)[:672]
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA384())))
    return data + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)
