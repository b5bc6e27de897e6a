"""RA-TLS certificates after the CCC's interoperable profile (docs/formats/ratls.md): evidence for a TLS key.

github.com/CCC-Attestation/interoperable-ra-tls, "X.509 Cert and Evidence Formats" and "SGX / TDX Evidence
Tags and Formats": extension 2.23.133.5.4.9 holds CBOR tag 60000 around ``[quote, claims]``, the claims hold
a hash of the certificate's key, and the quote's report data is SHA-256 of the claims. This module reads and
makes the form; who signed the quote, and what it measures, is for ``client.evidence``.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from quotary.attestation import cbor, cbor_encode
from quotary.attestation.cbor_encode import Tagged
from quotary.errors import Malformed, Rejected

EVIDENCE = x509.ObjectIdentifier("2.23.133.5.4.9")
INTEL_QUOTE = 60_000
MAX_CERTIFICATE = 64 * 1024

_TAG = bytes([cbor.TAG << 5 | 25]) + INTEL_QUOTE.to_bytes(2, "big")
_KEY_HASH = "pubkey-hash"
# "Named Information Hash Algorithm" of IANA, as many as the profile wants of a verifier.
_HASHES = {1: hashlib.sha256, 7: hashlib.sha384, 8: hashlib.sha512}
_SHA256_ID = 1


@dataclass(frozen=True, slots=True)
class AttestedCertificate:
    """A certificate whose claims name its own key; nobody has judged the quote.

    spki:   SubjectPublicKeyInfo in DER, as hashed in the claims
    quote:  evidence as the hardware gave it; claims: exact bytes of the CBOR map
    """

    spki: bytes
    quote: bytes
    claims: bytes

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the quote has to hold."""
        return report_data_of(self.claims)

    @classmethod
    def parse(cls, der: bytes) -> "AttestedCertificate":
        """Read a certificate; ``Malformed`` for another form, ``Rejected`` for claims about another key."""
        if len(der) > MAX_CERTIFICATE:
            raise Malformed(f"certificate has {len(der)} bytes, at most {MAX_CERTIFICATE} are read")
        try:
            certificate = x509.load_der_x509_certificate(der)
            spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            extension = certificate.extensions.get_extension_for_oid(EVIDENCE).value
        except x509.ExtensionNotFound as error:
            raise Malformed(f"certificate has no extension {EVIDENCE.dotted_string}") from error
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            raise Malformed("a certificate cannot be read") from error
        assert isinstance(extension, x509.UnrecognizedExtension), "the library knows no such extension"
        quote, claims = _parts(extension.value)
        _require_key(claims, spki)
        return cls(spki, quote, claims)


def claims_of(public: ec.EllipticCurvePublicKey) -> bytes:
    """Write the claims of a key: its SHA-256, and nothing else."""
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    hashed = cbor_encode.encode([_SHA256_ID, hashlib.sha256(spki).digest()])
    return cbor_encode.encode({_KEY_HASH: hashed})


def report_data_of(claims: bytes) -> bytes:
    """Compute the 64 bytes that evidence over these claims is asked for."""
    return hashlib.sha256(claims).digest() + bytes(32)


def make_certificate(
    key: ec.EllipticCurvePrivateKey, quote: bytes, name: str, begin: datetime, end: datetime
) -> bytes:
    """Make a certificate in DER, signed by its own key, around evidence over ``claims_of`` that key.

    The serial number is the start of the key's hash, so that one key has one certificate.
    """
    claims = claims_of(key.public_key())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    evidence = cbor_encode.encode(Tagged(INTEL_QUOTE, [quote, claims]))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1 + int.from_bytes(hashlib.sha256(spki).digest()[:15], "big"))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.UnrecognizedExtension(EVIDENCE, evidence), critical=False)
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.DER)


def verify_self_signed(der: bytes) -> None:
    """Require that a certificate's own key signed it: what is in it is what the key's holder wrote."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature as error:
        raise Rejected("certificate signature", "another key's", "its own key's") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("a certificate cannot be read") from error


def _parts(data: bytes) -> tuple[bytes, bytes]:
    """Split the extension's value into quote and claims."""
    if not data.startswith(_TAG):
        raise Malformed(f"evidence begins with {data[:3].hex()}, wanted CBOR tag {INTEL_QUOTE}")
    parts = cbor.decode(data[len(_TAG) :], MAX_CERTIFICATE)
    if not isinstance(parts, tuple) or len(parts) != 2:
        raise Malformed("evidence is not an array of quote and claims")
    quote, claims = parts
    if not isinstance(quote, bytes) or not isinstance(claims, bytes):
        raise Malformed("quote and claims are not byte strings")
    return quote, claims


def _require_key(claims: bytes, spki: bytes) -> None:
    """Require that the claims hash this key; claims of other names (rats-tls adds some) say nothing to us."""
    found = cbor.decode(claims, MAX_CERTIFICATE)
    hashed = found.get(_KEY_HASH) if isinstance(found, dict) else None
    entry = cbor.decode(hashed, MAX_CERTIFICATE) if isinstance(hashed, bytes) else None
    if not isinstance(entry, tuple) or len(entry) != 2:
        raise Malformed(f"claims have no {_KEY_HASH} of an algorithm and a hash")
    algorithm, digest = entry
    if not isinstance(algorithm, int) or algorithm not in _HASHES or not isinstance(digest, bytes):
        raise Malformed(f"claims hash the key by {algorithm!r}, wanted SHA-256, SHA-384 or SHA-512")
    wanted = _HASHES[algorithm](spki).digest()
    if not hmac.compare_digest(digest, wanted):
        raise Rejected("certificate key", digest.hex(), f"{wanted.hex()}, the hash of the certificate's key")
