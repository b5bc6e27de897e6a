"""Whether a vendor took a certificate back, by the answers of its OCSP responder (RFC 6960).

An answer is about one certificate, is signed by its issuer or by whom the issuer named for that, and is a day
old at most, so it travels beside evidence like a revocation list. It carries no nonce of ours, for then it
could not be handed on: an old ``good`` hides a revocation for that day and no longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from quotary.attestation.certificates import Certificate, require_issuer, require_within
from quotary.errors import Malformed, Rejected

MAX_ANSWER = 16 * 1024
MAX_AGE = timedelta(hours=24)
# The responder's clock may be ahead of ours by so much.
MAX_AHEAD = timedelta(minutes=5)

_CRITICAL = ExtensionOID.EXTENDED_KEY_USAGE.dotted_string


@dataclass(frozen=True, slots=True)
class Answer:
    """One well-formed answer that nobody believes yet.

    status: ``good``, ``unknown``, or ``revoked`` with the reason where one is given
    signer: the certificate that came with it; None where the issuer itself signed
    """

    status: str
    this_update: datetime
    next_update: datetime
    signer: Certificate | None
    algorithm: HashAlgorithm
    parsed: ocsp.OCSPResponse

    @classmethod
    def parse(cls, der: bytes) -> "Answer":
        """Read a DER response about one certificate; raises ``Malformed``, also for a refusal to answer."""
        if len(der) > MAX_ANSWER:
            raise Malformed(f"an OCSP answer has {len(der)} bytes, at most {MAX_ANSWER} are allowed")
        try:
            parsed = ocsp.load_der_ocsp_response(der)
            if parsed.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL:
                raise Malformed(f"the OCSP responder gives no answer: {parsed.response_status.name.lower()}")
            return _read(parsed)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            raise Malformed("an OCSP answer cannot be read") from error

    def is_about(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Say whether the answer names this certificate: its serial number, its issuer's name and key."""
        # Machines have many devices, and so many answers that are about another one.
        if self.parsed.serial_number != certificate.serial:
            return False
        wanted = _request(certificate, issuer, self.algorithm)
        return (
            self.parsed.issuer_name_hash == wanted.issuer_name_hash
            and self.parsed.issuer_key_hash == wanted.issuer_key_hash
        )


def request(certificate: Certificate, issuer: Certificate) -> bytes:
    """Write the question about a certificate, in DER; the same each time, so that its answer can be kept."""
    return _request(certificate, issuer, SHA384()).public_bytes(Encoding.DER)


def good_until(
    what: str, chain: Sequence[Certificate], answers: Sequence[Answer], now: datetime
) -> datetime | None:
    """Give until when all certificates of a verified chain are good; None where one has no answer.

    1. The issuer signed each answer about its certificate, or somebody whom it named for that.
    2. The answer is in its time, and at most a day old.
    3. It says that the certificate is good.
    The chain's last certificate is a pinned root, about which nobody is asked. Answers about other
    certificates are not looked at. Raises ``Rejected`` with the check ``what``.
    """
    ends: list[datetime | None] = []
    for certificate, issuer in pairwise(chain):
        found = [answer for answer in answers if answer.is_about(certificate, issuer)]
        for answer in found:
            _require_signed(what, answer, issuer, now)
            require_within(what, answer.this_update - MAX_AHEAD, now, _end(answer))
            if answer.status != "good":
                raise Rejected(what, f"{certificate.subject_text} is {answer.status}", "good")
        ends.append(min(map(_end, found), default=None))
    known = [end for end in ends if end is not None]
    return min(known) if len(known) == len(ends) else None


def _request(certificate: Certificate, issuer: Certificate, algorithm: HashAlgorithm) -> ocsp.OCSPRequest:
    builder = ocsp.OCSPRequestBuilder()
    return builder.add_certificate(certificate.parsed, issuer.parsed, algorithm).build()


def _read(parsed: ocsp.OCSPResponse) -> Answer:
    # These names are about the only certificate of the answer; the library refuses them if there are more.
    end, algorithm = parsed.next_update_utc, parsed.signature_hash_algorithm
    if end is None or not isinstance(algorithm, SHA384):
        raise Malformed("an OCSP answer needs an end and a signature with SHA-384")
    if any(extension.critical for extension in (*parsed.extensions, *parsed.single_extensions)):
        raise Malformed("an OCSP answer has a critical extension")
    status = parsed.certificate_status.name.lower()
    reason = parsed.revocation_reason
    return Answer(
        status=status if reason is None else f"{status}: {reason.value}",
        this_update=parsed.this_update_utc,
        next_update=end,
        signer=Certificate.parse(parsed.certificates[0]) if parsed.certificates else None,
        algorithm=parsed.hash_algorithm,
        parsed=parsed,
    )


def _require_signed(what: str, answer: Answer, issuer: Certificate, now: datetime) -> None:
    signer = issuer if answer.signer is None else answer.signer
    if signer.fingerprint != issuer.fingerprint:
        require_issuer(what, signer, issuer, 0)
        require_within(what, signer.not_before, now, signer.not_after)
        _require_named(what, signer)
    if not isinstance(signer.key, ec.EllipticCurvePublicKey):
        raise Rejected(what, "a responder with a key of another kind", "an EC key")
    try:
        signer.key.verify(answer.parsed.signature, answer.parsed.tbs_response_bytes, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise Rejected(what, "an answer with a signature that does not hold", signer.subject_text) from error


def _require_named(what: str, signer: Certificate) -> None:
    """RFC 6960, section 4.2.2.2: only a certificate for OCSP signing may answer for its issuer."""
    usages = [
        found.value for found in signer.parsed.extensions if isinstance(found.value, x509.ExtendedKeyUsage)
    ]
    if not any(ExtendedKeyUsageOID.OCSP_SIGNING in usage for usage in usages):
        raise Rejected(what, f"an answer by {signer.subject_text}", "a certificate for OCSP signing")
    unknown = [name for name in signer.unknown_critical if name != _CRITICAL]
    if unknown:
        raise Rejected(what, f"critical extension {unknown[0]}", "none that is unknown")


def _end(answer: Answer) -> datetime:
    return min(answer.next_update, answer.this_update + MAX_AGE)
