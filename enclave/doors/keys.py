"""The keys that doors sign with: born at start, named in every keyset of this process, each for one door.

Where a key service gave a seed they are made of it: a door's clients find the same keys on the next machine.

They are others than the channel's and the receipts', because what they sign has another system's form: a
signature made here can be none of a receipt. A door that is closed has no key.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enclave.chat import APIError
from enclave.doors import ethereum
from quotary.statements.keyset import DOOR, KeysetKey

Key = TypeVar("Key")

ECDSA, ED25519 = "ecdsa", "ed25519"
BROWSER, NANOGPT, VLLM_PROXY = "browser", "nanogpt", "vllm-proxy"


class DoorKeys:
    """The signing keys of the open doors; after ``destroy`` nothing is signed any more."""

    def __init__(self, doors: Sequence[str], seed: bytes | None = None) -> None:
        """seed: 32 bytes that every enclave of the service gets, or None for keys of this process alone."""
        self._lock = threading.Lock()
        texts = NANOGPT in doors or VLLM_PROXY in doors
        self._ecdsa = _on_curve(ec.SECP256K1(), seed) if texts else None
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(_secret(seed, "ed25519", 32)) if texts else None
        self._p256 = _on_curve(ec.SECP256R1(), seed) if BROWSER in doors else None
        found = {
            "ed25519": self._ed25519 and self._ed25519.public_key().public_bytes_raw(),
            "p-256": self._p256 and ethereum.public_bytes(self._p256.public_key()),
            "secp256k1": self._ecdsa and ethereum.public_bytes(self._ecdsa.public_key()),
        }
        self.public = tuple(
            KeysetKey(f"door-{alg}-{hashlib.sha256(public).hexdigest()[:16]}", DOOR, alg, public)
            for alg, public in found.items()
            if public
        )

    def of(self, alg: str) -> bytes:
        """Give the public key of an algorithm as the keyset names it."""
        return next(key.public for key in self.public if key.alg == alg)

    def sign_text(self, algorithm: str, text: str) -> str:
        """Sign as the vllm-proxy does: EIP-191 in ``0x`` hex, or plain Ed25519 in hex."""
        with self._lock:
            if algorithm == ECDSA:
                return ethereum.personal_sign(_held(self._ecdsa), text)
            return _held(self._ed25519).sign(text.encode()).hex()

    def sign_bytes(self, data: bytes) -> bytes:
        """Sign as WebCrypto does with P-256 and SHA-256: 64 bytes, ``r | s``."""
        with self._lock:
            signature = _held(self._p256).sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))
        return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))

    def destroy(self) -> None:
        """Forget the private halves, for good."""
        with self._lock:
            self._ecdsa = self._ed25519 = self._p256 = None


def _on_curve(curve: ec.EllipticCurve, seed: bytes | None) -> ec.EllipticCurvePrivateKey:
    # 16 bytes more than the order has, so that the remainder is as good as uniform.
    number = int.from_bytes(_secret(seed, curve.name, 48), "big") % (curve.group_order - 1) + 1
    return ec.derive_private_key(number, curve)


def _secret(seed: bytes | None, alg: str, length: int) -> bytes:
    if seed is None:
        return os.urandom(length)
    return HKDF(SHA256(), length, salt=None, info=b"quotary-door/v1\n" + alg.encode()).derive(seed)


def _held(key: Key | None) -> Key:
    if key is None:
        raise APIError(503, "not_serving", "this enclave signs nothing any more", kind="server_error")
    return key
