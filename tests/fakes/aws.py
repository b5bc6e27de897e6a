"""AWS with keys of its own: Nitro documents whose every member is at the test's will, by an own CBOR writer."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 7, 1, tzinfo=UTC)
PROTECTED = bytes.fromhex("a1013822")


def head(major: int, number: int) -> bytes:
    for info, length in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 24:
            return bytes([major << 5 | number])
        if number < 1 << (8 * length):
            return bytes([major << 5 | info]) + number.to_bytes(length, "big")
    raise ValueError("too large")


def encode(value: object) -> bytes:
    match value:
        case bool() | None:
            return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list() | tuple():
            return head(4, len(value)) + b"".join(map(encode, value))
        case dict():
            return head(5, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
    raise TypeError(value)


@dataclass(frozen=True, slots=True)
class Signer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    common: str,
    issuer: Signer | None = None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    begin: datetime = NOW - timedelta(hours=1),
    end: datetime = NOW + timedelta(hours=2),
    organisation: str = "Amazon",
    key: ec.EllipticCurvePrivateKey | None = None,
    serial: int | None = None,
    extensions: dict[str, bytes] | None = None,
    critical: bool = False,
) -> Signer:
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, path_length if ca else None), True)
        .add_extension(usage, True)
    )
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical
        )
    return Signer(builder.sign(issuer.key if issuer else key, SHA384()), key)


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@dataclass(frozen=True, slots=True)
class Hypervisor:
    root: Signer
    above: tuple[Signer, ...]
    leaf: Signer

    def payload(self, **changes: object) -> dict[str, object]:
        return {
            "module_id": "i-0123-enc0456",
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp()) * 1000,
            "pcrs": {number: bytes([number + 1]) * 48 for number in (0, 1, 2, 3, 4, 8)},
            "certificate": self.leaf.der,
            "cabundle": [self.root.der, *(signer.der for signer in self.above)],
            "public_key": None,
            "user_data": b"\7" * 64,
            "nonce": None,
        } | changes

    def document(
        self, payload: object = None, unprotected: object = None, protected: bytes = PROTECTED
    ) -> bytes:
        content = payload if isinstance(payload, bytes) else encode(payload or self.payload())
        signature = sign(self.leaf.key, encode(["Signature1", protected, b"", content]))
        return encode([protected, {} if unprotected is None else unprotected, content, signature])


def hypervisor() -> Hypervisor:
    root = issue("aws.nitro-enclaves")
    zone = issue("zone", root, path_length=1)
    instance = issue("instance", zone, path_length=0)
    return Hypervisor(root, (zone, instance), issue("enclave", instance, ca=False))
