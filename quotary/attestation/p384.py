"""ECDSA on P-384 with SHA-384, the signature of AMD's, AWS's and NVIDIA's evidence (FIPS 186-5, 6)."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from quotary.errors import Malformed, Rejected

SIGNATURE_LENGTH = 96


def verify_p384(what: str, key: object, signature: bytes, message: bytes) -> None:
    """Require a signature of 96 bytes r || s, big endian, over ``message`` (check ``what``).

    Raises ``Rejected`` for a key of another kind and for a signature that does not hold, ``Malformed`` for
    another length.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Rejected(what, "a key of another kind", "a P-384 key")
    if len(signature) != SIGNATURE_LENGTH:
        raise Malformed(f"{what} has {len(signature)} bytes, {SIGNATURE_LENGTH} are needed")
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise Rejected(
            what, "a signature that does not hold", "a signature over exactly these bytes"
        ) from error
