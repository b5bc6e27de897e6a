"""The second door: TLS to a key in the judged keyset, in a certificate with evidence (docs/formats/ratls.md).

``AttestedTLS`` is a transport. What it carries stays sealed to the keyset's channel key, because evidence in
a handshake says who made a key and not who holds it now: whoever took a TLS key out of one machine can show
that machine's certificate from another one. He then carries bytes that he can neither open nor answer.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary.attestation.document import AttestationDocument
from quotary.attestation.facts import Facts
from quotary.attestation.ratls import AttestedCertificate, verify_self_signed
from quotary.client.clock import Clock
from quotary.client.evidence import evidence_time, verify_evidence
from quotary.client.policy import Policy
from quotary.client.trust import Memory
from quotary.client.verdict import Trail, Verdict
from quotary.client.ways import KeysetChanged
from quotary.errors import Rejected
from quotary.net.transport import HTTP, Reply, Request, Stream, Transport
from quotary.statements.keyset import RATLS, Keyset
from quotary.statements.measurement import measurement_id

ATTESTATION = "/v1/attestation"
CHECK = "certificate"


def verify_certificate(
    der: bytes, document: AttestationDocument, policy: Policy, memory: Memory, clock: Clock
) -> Facts:
    """Judge a certificate by itself, as any verifier of RA-TLS does: admitted evidence for its key.

    document: has the collateral

    That alone says nothing of log, status and floor, and nothing of who holds the key now.
    """
    found = AttestedCertificate.parse(der)
    verify_self_signed(der)
    shown = replace(document, evidence=found.quote)
    facts = verify_evidence(shown, policy, evidence_time(policy, memory, clock), Trail())
    if facts.report_data != found.report_data:
        raise Rejected("certificate evidence", facts.report_data.hex(), found.report_data.hex())
    return facts


def ratls_keys(keyset: Keyset) -> frozenset[bytes]:
    """Give the keys that this keyset's certificates may have, as SubjectPublicKeyInfo in DER."""
    return frozenset(
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.public).public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        for key in keyset.of_role(RATLS)
    )


class AttestedTLS:
    """A transport to one enclave through its second door, and for everything else the one that is given.

    url: the door's address; only ``https``
    """

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport, self._url = transport, url.rstrip("/")
        self._shown = b""
        self._believed: frozenset[bytes] = frozenset()
        self._door = HTTP(shown=self._require_believed)

    def believe(
        self,
        document: AttestationDocument,
        verdict: Verdict,
        policy: Policy,
        memory: Memory,
        clock: Clock,
        trail: Trail,
    ) -> None:
        """Take the keys of the keyset that was judged, if the door showed one of them with evidence.

        1. The certificate's evidence holds by itself, and is about its key.
        2. It is of the measurement that was judged.
        3. The judged keyset has its key.
        """
        wanted, anchor = "evidence of this machine, for a key of its keyset", "the judged keyset"
        keys = ratls_keys(verdict.keyset)
        with trail.step(CHECK, wanted, anchor):
            facts = verify_certificate(self._shown, document, policy, memory, clock)
            measured = measurement_id(facts.platform, facts.registers)
            if measured != verdict.measurement_id:
                raise Rejected("certificate measurement", measured.hex(), verdict.measurement_id.hex())
            _require_key(self._shown, keys)
            trail.held(CHECK, f"evidence of {measured.hex()}", wanted, anchor)
        self._believed = keys

    def send(self, request: Request) -> Reply:
        """Send through the door; only for an attestation to whoever answers, whose certificate is kept."""
        if not request.url.startswith(f"{self._url}/"):
            return self._transport.send(request)
        if not request.url.startswith(f"{self._url}{ATTESTATION}?"):
            return self._door.send(request)
        with closing(HTTP(shown=self._keep)) as anybody:
            return anybody.send(request)

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        """Send through the door to a believed key, or raise ``KeysetChanged`` before a byte leaves."""
        inside = request.url.startswith(f"{self._url}/")
        transport: Transport = self._door if inside else self._transport
        with transport.open(request) as stream:
            yield stream

    def close(self) -> None:
        """Close every kept connection."""
        self._door.close()

    def _keep(self, der: bytes) -> None:
        self._shown = der

    def _require_believed(self, der: bytes) -> None:
        try:
            _require_key(der, self._believed)
        except Rejected as error:
            raise KeysetChanged(str(error)) from error


def _require_key(der: bytes, keys: frozenset[bytes]) -> None:
    found = AttestedCertificate.parse(der).spki
    if found not in keys:
        raise Rejected("certificate key", found.hex(), f"one of the judged keyset's {len(keys)}")
