"""What one party may read: HPKE single shots (RFC 9180 base mode; X-Wing, HKDF-SHA256, AES-256-GCM).

The suite of the sealed channel, so that what a node seals to an enclave's one-time key opens with it.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from quotary.errors import Malformed, Rejected

SEED_LENGTH = 64 + 32
PUBLIC_LENGTH = 1184 + 32
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal(public: bytes, secret: bytes, info: bytes) -> bytes:
    """Seal a secret to a public key (1216 bytes) for one use, which ``info`` names."""
    if len(public) != PUBLIC_LENGTH:
        raise Malformed(f"an X-Wing key has {PUBLIC_LENGTH} bytes, found {len(public)}")
    try:
        kem = MLKEM768PublicKey.from_public_bytes(public[:1184])
        curve = X25519PublicKey.from_public_bytes(public[1184:])
    except ValueError as error:
        raise Malformed("not an X-Wing key") from error
    return _SUITE.encrypt(secret, MLKEM768X25519PublicKey(kem, curve), info=info)


class Box:
    """An X-Wing key pair that is kept: its seed is 96 bytes."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_LENGTH:
            raise Malformed(f"an X-Wing seed has {SEED_LENGTH} bytes here, found {len(seed)}")
        kem = MLKEM768PrivateKey.from_seed_bytes(seed[:64])
        curve = X25519PrivateKey.from_private_bytes(seed[64:])
        self._key = MLKEM768X25519PrivateKey(kem, curve)
        self.public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Open what was sealed for this use, or raise ``Rejected`` (check ``sealed``)."""
        try:
            return _SUITE.decrypt(sealed, self._key, info=info)
        except (InvalidTag, ValueError):
            raise Rejected("sealed", "bytes that do not open", "bytes sealed to this key") from None
