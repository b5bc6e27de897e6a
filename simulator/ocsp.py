"""The answers of a simulated NVIDIA about its certificates (RFC 6960): good, signed by their issuers.

Each carries the certificate of its signer, as NVIDIA's do: NVIDIA's verifier reads the key there.
"""

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from simulator.keys import Signer

LIFE = timedelta(hours=23)


def make_answers(chains: Iterable[Sequence[Signer]], now: datetime) -> dict[str, str]:
    """Answer at this time about every certificate of chains but their roots: name to base64."""
    pairs = {
        child.certificate.serial_number: (child, issuer)
        for chain in chains
        for child, issuer in pairwise(chain)
    }
    return {f"ocsp:{serial:x}": _good(child, issuer, now) for serial, (child, issuer) in pairs.items()}


def _good(child: Signer, issuer: Signer, now: datetime) -> str:
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    builder = ocsp.OCSPResponseBuilder().add_response(
        child.certificate,
        issuer.certificate,
        hashes.SHA384(),
        ocsp.OCSPCertStatus.GOOD,
        now,
        now + LIFE,
        None,
        None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer.certificate)
    builder = builder.certificates([issuer.certificate])
    der = builder.sign(issuer.key, hashes.SHA384()).public_bytes(serialization.Encoding.DER)
    return base64.b64encode(der).decode("ascii")
