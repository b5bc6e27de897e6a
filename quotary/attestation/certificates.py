"""X.509 certificates, chains and revocation lists, as far as vendors' attestation roots need them (RFC 5280).

``cryptography`` parses and checks signatures. The path rules are our own because its verifier refuses AMD's
RSA-PSS chains; they are the narrow ones: a chain is given in order, ends in a pinned root, and everything
unknown and critical is refused.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from quotary.errors import Malformed, Rejected

P256_SIGNATURE_LENGTH = 64
# RFC 5280 section 4.1.2.2 allows 20 bytes, and no vendor's RSA key is longer; a host may send anything.
MAX_SERIAL_BITS = 160
MAX_RSA_BITS = 4096

_UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS.dotted_string, ExtensionOID.KEY_USAGE.dotted_string})
# What the library raises for bytes that are no certificate or list, whole or in a part that it reads late.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate, read once.

    fingerprint:     32 bytes, SHA-256 over the DER
    organisations:   O of subject and issuer
    path_length:     how many CAs may stand below; None means no limit
    extensions:      values of the extensions that this package reads itself, by dotted OID (DER content)
    unknown_critical: OIDs that are critical and that nobody here understands
    """

    fingerprint: bytes
    subject_text: str
    common_name: str
    organisations: tuple[str, ...]
    serial: int
    not_before: datetime
    not_after: datetime
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    is_ca: bool
    path_length: int | None
    signs_certificates: bool
    signs_lists: bool
    extensions: Mapping[str, bytes]
    unknown_critical: tuple[str, ...]
    parsed: x509.Certificate

    @classmethod
    def parse(cls, parsed: x509.Certificate) -> "Certificate":
        """Read what ``cryptography`` parsed; raises ``Malformed`` for what it cannot represent."""
        try:
            return _read(parsed)
        except _UNREADABLE as error:
            raise Malformed("a certificate cannot be read") from error


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One CRL; believed only after ``verify``."""

    this_update: datetime
    next_update: datetime
    parsed: x509.CertificateRevocationList

    @classmethod
    def parse(cls, der: bytes) -> "RevocationList":
        """Read a DER list; one without an end, or with something critical in it, is ``Malformed``."""
        try:
            parsed = x509.load_der_x509_crl(der)
            until = parsed.next_update_utc
            critical = [extension.oid for extension in parsed.extensions if extension.critical]
            _ = parsed.issuer  # Parsed on first use; ``verify`` compares it before it checks the signature.
            _require_whole_bytes(parsed.public_bytes(Encoding.DER), parsed.signature)
        except _UNREADABLE as error:
            raise Malformed("a revocation list cannot be read") from error
        if until is None or critical:
            raise Malformed("a revocation list needs an end and no critical extensions")
        return cls(parsed.last_update_utc, until, parsed)

    def verify(self, what: str, issuer: Certificate, now: datetime) -> None:
        """Require that ``issuer`` signed the list and that ``now`` is inside its time (check ``what``)."""
        if self.parsed.issuer != issuer.parsed.subject or not issuer.signs_lists:
            raise Rejected(what, f"issuer {self.parsed.issuer.rfc4514_string()}", issuer.subject_text)
        # Gives False for every odd algorithm too: the key is known to be EC or RSA.
        if not self.parsed.is_signature_valid(issuer.key):
            raise Rejected(what, "a signature that does not hold", f"signed by {issuer.subject_text}")
        require_within(what, self.this_update, now, self.next_update)

    def refuse(self, what: str, certificate: Certificate) -> None:
        """Refuse a certificate of this list's issuer that the list names (check ``what``)."""
        if certificate.parsed.issuer != self.parsed.issuer:
            raise Rejected(what, f"a list of {self.parsed.issuer.rfc4514_string()}", "a list of its issuer")
        if self.parsed.get_revoked_certificate_by_serial_number(certificate.serial) is not None:
            raise Rejected(what, f"serial {certificate.serial:x} is revoked", "a certificate in force")


def parse_certificate(der: bytes) -> Certificate:
    """Read one DER certificate."""
    try:
        parsed = x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise Malformed("not a DER certificate") from error
    return Certificate.parse(parsed)


def parse_chain(pem: bytes, length: int) -> tuple[Certificate, ...]:
    """Read exactly ``length`` PEM certificates, leaf first; NUL bytes behind them are ignored.

    Between them is white space and nothing else: no other PEM, header or text, which other readers could
    take for a certificate.
    """
    pem = pem.rstrip(b"\0")
    try:
        parsed = x509.load_pem_x509_certificates(pem)
        again = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in parsed)
    except _UNREADABLE as error:
        raise Malformed("not a chain of PEM certificates") from error
    if b"".join(again.split()) != b"".join(pem.split()):
        raise Malformed("a chain of PEM certificates has something else before, between or behind them")
    if len(parsed) != length:
        raise Malformed(f"chain has {len(parsed)} certificates, {length} are needed")
    return tuple(Certificate.parse(certificate) for certificate in parsed)


def verify_chain(what: str, chain: Sequence[Certificate], fingerprint: bytes, now: datetime) -> None:
    """Require a path from ``chain[0]`` to the root with this fingerprint, every certificate in force at
    ``now``.

    Raises ``Rejected`` with the check ``what`` at the first rule that fails.
    """
    if chain[-1].fingerprint != fingerprint:
        raise Rejected(what, f"root {chain[-1].fingerprint.hex()}", f"root {fingerprint.hex()}")
    for certificate in chain:
        require_within(what, certificate.not_before, now, certificate.not_after)
        if certificate.unknown_critical:
            raise Rejected(
                what, f"critical extension {certificate.unknown_critical[0]}", "none that is unknown"
            )
    for depth, (child, issuer) in enumerate(pairwise(chain)):
        require_issuer(what, child, issuer, depth)
    require_issuer(what, chain[-1], chain[-1], 0)


def require_issuer(what: str, child: Certificate, issuer: Certificate, below: int) -> None:
    """Require that ``issuer``, a CA above ``below`` others, signed ``child`` (check ``what``)."""
    if not issuer.is_ca or not issuer.signs_certificates:
        raise Rejected(what, f"issuer {issuer.subject_text}", "an issuer that may sign certificates")
    if issuer.path_length is not None and below > issuer.path_length:
        raise Rejected(what, f"{below} CAs below {issuer.subject_text}", f"at most {issuer.path_length}")
    try:
        child.parsed.verify_directly_issued_by(issuer.parsed)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise Rejected(what, f"{child.subject_text} not signed by it", issuer.subject_text) from error


def require_within(what: str, start: datetime, now: datetime, end: datetime) -> None:
    """Require ``start <= now <= end`` (check ``what``)."""
    if not start <= now <= end:
        raise Rejected(what, f"judged at {now.isoformat()}", f"{start.isoformat()} to {end.isoformat()}")


def verify_p256(what: str, key: object, signature: bytes, message: bytes) -> None:
    """Require an ECDSA P-256 SHA-256 signature of 64 bytes r||s, big endian (check ``what``).

    Raises ``Rejected`` for another key, another length, and a signature that does not hold.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Rejected(what, "a key of another kind", "a P-256 key")
    if len(signature) != P256_SIGNATURE_LENGTH:
        raise Rejected(what, f"{len(signature)} bytes", f"{P256_SIGNATURE_LENGTH} bytes")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except InvalidSignature as error:
        raise Rejected(
            what, "a signature that does not hold", "a signature over exactly these bytes"
        ) from error


def _require_whole_bytes(der: bytes, signature: bytes) -> None:
    # The signature is the BIT STRING at the end; in front of its bytes stands how many last bits are unused.
    # Nothing signs that number and no reader of signatures looks at it: another one is a second spelling.
    if der[-len(signature) - 1]:
        raise Malformed("a signature that does not end with a whole byte")


def _read(parsed: x509.Certificate) -> Certificate:
    key = parsed.public_key()
    der = parsed.public_bytes(Encoding.DER)
    _require_whole_bytes(der, parsed.signature)
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Malformed("a certificate's key is neither EC nor RSA")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size > MAX_RSA_BITS:
        raise Malformed(
            f"a certificate's RSA key has {key.key_size} bits, at most {MAX_RSA_BITS} are allowed"
        )
    if parsed.serial_number.bit_length() > MAX_SERIAL_BITS:
        bits = parsed.serial_number.bit_length()
        raise Malformed(
            f"a certificate's serial number has {bits} bits, at most {MAX_SERIAL_BITS} are allowed"
        )
    constraints = usage = None
    extensions: dict[str, bytes] = {}
    unknown = []
    for extension in parsed.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
        elif isinstance(extension.value, x509.UnrecognizedExtension):
            extensions[extension.oid.dotted_string] = extension.value.value
        if extension.critical and extension.oid.dotted_string not in _UNDERSTOOD:
            unknown.append(extension.oid.dotted_string)
    names = [attribute for name in (parsed.subject, parsed.issuer) for attribute in name]
    common = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        fingerprint=hashlib.sha256(der).digest(),
        subject_text=parsed.subject.rfc4514_string(),
        common_name=str(common[0].value) if len(common) == 1 else "",
        organisations=tuple(str(name.value) for name in names if name.oid == NameOID.ORGANIZATION_NAME),
        serial=parsed.serial_number,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        key=key,
        is_ca=constraints is not None and constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        signs_certificates=usage is not None and usage.key_cert_sign,
        signs_lists=usage is not None and usage.crl_sign,
        extensions=extensions,
        unknown_critical=tuple(unknown),
        parsed=parsed,
    )
