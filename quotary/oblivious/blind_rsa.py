"""Blind RSA signatures (RFC 9474), the deterministic PSS variant that Privacy Pass uses.

``RSABSSA-SHA384-PSS-Deterministic``: the message is signed as it is (PrepareIdentity), under EMSA-PSS with
SHA-384 and a salt of 48 bytes. The signer learns nothing of the message; anyone verifies the result as an
ordinary RSASSA-PSS signature, which ``cryptography`` does. Blinding and the bare private operation are in no
library that is kept, so they are here, over the integers of Python or of ``gmpy2``.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature as Mismatch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from quotary.errors import InvalidSignature, Malformed, Rejected

SALT_LENGTH = HASH_LENGTH = 48
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), SALT_LENGTH)


@dataclass(frozen=True, slots=True)
class Blinded:
    """A blinded message, as long as the key, for the signer; and the secret that undoes it."""

    message: bytes
    inverse: int


def blind(
    key: rsa.RSAPublicKey, message: bytes, *, salt: bytes | None = None, factor: int | None = None
) -> Blinded:
    """Blind a message (RFC 9474 section 4.2); ``salt`` and ``factor`` are for its test vectors alone."""
    n, e = _numbers(key)
    salt = secrets.token_bytes(SALT_LENGTH) if salt is None else salt
    encoded = int.from_bytes(_emsa_pss(message, salt, n.bit_length() - 1), "big")
    if math.gcd(encoded, n) != 1:
        raise Malformed("a message that shares a factor with the key cannot be blinded")
    while True:
        r = secrets.randbelow(n - 1) + 1 if factor is None else factor
        try:
            inverse = pow(r, -1, n)
        except ValueError:
            continue
        return Blinded(_bytes(encoded * pow(r, e, n) % n, n), inverse)


def finalize(key: rsa.RSAPublicKey, message: bytes, signed: bytes, inverse: int) -> bytes:
    """Turn the signer's answer into a signature of ``message`` (section 4.4), or raise ``Rejected``."""
    n, _ = _numbers(key)
    signature = _bytes(_number(signed, n, "blind signature") * inverse % n, n)
    try:
        verify(key, message, signature)
    except InvalidSignature:
        raise Rejected("blind signature", "one of another key or message", "the issuer's") from None
    return signature


def verify(key: rsa.RSAPublicKey, message: bytes, signature: bytes) -> None:
    """Check a finished signature, or raise ``InvalidSignature``."""
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except Mismatch:
        raise InvalidSignature("the blind RSA signature does not hold") from None


class Signer:
    """An issuer's private key: signs what it cannot read (section 4.3)."""

    __slots__ = ("_e", "_key", "_n")

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        self._n, self._e = _numbers(private.public_key())
        numbers = private.private_numbers()
        self._key = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)

    def sign(self, blinded: bytes) -> bytes:
        """Sign a blinded message; the result is checked, because a faulty one gives the key."""
        from gmpy2 import mpz, powmod, powmod_sec

        n, e = self._n, self._e
        m = _number(blinded, n, "blinded message")
        p, q, dp, dq, q_inverse = map(mpz, self._key)
        # The message is the caller's choice: the exponentiation sees it only times a number of ours.
        r = mpz(secrets.randbelow(n - 1) + 1)
        hidden = m * powmod(r, e, n) % n
        at_p, at_q = powmod_sec(hidden % p, dp, p), powmod_sec(hidden % q, dq, q)
        s = (at_q + q * ((at_p - at_q) * q_inverse % p)) * powmod(r, -1, n) % n
        if powmod(s, e, n) != m:
            raise ArithmeticError("the private operation went wrong")
        return _bytes(int(s), n)


def _numbers(key: rsa.RSAPublicKey) -> tuple[int, int]:
    numbers = key.public_numbers()
    return numbers.n, numbers.e


def _number(data: bytes, n: int, what: str) -> int:
    found = int.from_bytes(data, "big")
    if len(data) != (n.bit_length() + 7) // 8 or found >= n:
        raise Malformed(f"a {what} is not a number below the modulus, as long as it")
    return found


def _bytes(value: int, n: int) -> bytes:
    return value.to_bytes((n.bit_length() + 7) // 8, "big")


def _emsa_pss(message: bytes, salt: bytes, bits: int) -> bytes:
    """Encode a message as RFC 8017 section 9.1.1 says, with SHA-384 and MGF1 with SHA-384."""
    length = (bits + 7) // 8
    inner = hashlib.sha384(b"\0" * 8 + hashlib.sha384(message).digest() + salt).digest()
    block = b"\0" * (length - SALT_LENGTH - HASH_LENGTH - 2) + b"\x01" + salt
    mask = _mgf1(inner, len(block))
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0xFF >> (8 * length - bits)
    return bytes(masked) + inner + b"\xbc"


def _mgf1(seed: bytes, length: int) -> bytes:
    blocks = (hashlib.sha384(seed + i.to_bytes(4, "big")).digest() for i in range(-(-length // HASH_LENGTH)))
    return b"".join(blocks)[:length]
