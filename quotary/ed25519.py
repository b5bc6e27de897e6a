"""Ed25519 verification in the one strict form that every part of Quotary uses (RFC 8032 section 5.1.7).

Libraries disagree about degenerate keys and signatures, and a log that two implementations replay must
not depend on which one they took. So, before a library is asked: the key and the commitment R are
canonical encodings (y below the field prime) of points that are not of small order, and S is below the
group order. The equation itself is the one without cofactor: R is recomputed and compared as bytes.
libsodium computes it where it is installed, as it takes half of OpenSSL's time, else OpenSSL
(docs/decisions/0018-libsodium-verifies.md).
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature as _LibraryRefusal
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from quotary.errors import InvalidSignature, Malformed

PUBLIC_KEY_LENGTH = 32
SIGNATURE_LENGTH = 64

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493

_D = -121665 * pow(121666, -1, PRIME) % PRIME
# y of the two pairs of points of order 8; the others have y = 1 (order 1), -1 (order 2) and 0 (order 4).
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = frozenset({0, 1, PRIME - 1, _Y8, PRIME - _Y8})

Equation = Callable[[bytes, bytes, bytes], None]
"""Takes key, signature and message in the strict form; raises ``InvalidSignature`` where R is another."""

# Key, signature and message that hold with cofactor only: R is 7B and a point of order 8.
_COFACTOR_ONLY = (
    bytes.fromhex("edc876d6831fd2105d0b4389ca2e283166469289146e2ce06faefe98b22548df"),
    bytes.fromhex(
        "e9b2fe981587efae6478f48ba1fa60cec6126d0e26dde72a0a24f640dcd783e5"
        "6c05f1a3d176acbf98597a9e8a66bdecc38e00ca1466da2ed202acb3999fef0c"
    ),
    b"quotary",
)


def check_public_key(key: bytes) -> None:
    """Refuse a public key (32 bytes) that is not canonical, not on the curve, or of small order.

    Raises ``Malformed`` for a wrong length, ``InvalidSignature`` for a key that could not vouch for anything.
    """
    y = _strict_y(key, "public key")
    # x^2 = (y^2 - 1) / (d y^2 + 1) must be a square (RFC 8032 section 5.1.3); d y^2 + 1 is never zero.
    squared = (y * y - 1) * pow(_D * y * y + 1, -1, PRIME) % PRIME
    if pow(squared, (PRIME - 1) // 2, PRIME) != 1:
        raise InvalidSignature("the public key is not a point of the curve")


def check_signature(signature: bytes) -> None:
    """Refuse a signature (64 bytes, R || S) with a degenerate R or an S that is not reduced."""
    if len(signature) != SIGNATURE_LENGTH:
        raise Malformed(f"an Ed25519 signature has {SIGNATURE_LENGTH} bytes, found {len(signature)}")
    _strict_y(signature[:32], "signature's R")
    if int.from_bytes(signature[32:], "little") >= ORDER:
        raise InvalidSignature("the signature's S is not below the group order")


def verify(key: bytes, signature: bytes, message: bytes) -> None:
    """Return if ``signature`` (64 bytes) over ``message`` was made by ``key`` (32 bytes), else raise.

    Raises ``Malformed`` for wrong lengths, ``InvalidSignature`` for everything else. A key that is not on the
    curve fails in the equation, so a caller does not need ``check_public_key`` here.
    """
    _strict_y(key, "public key")
    check_signature(signature)
    _EQUATION(key, signature, message)


def openssl(key: bytes, signature: bytes, message: bytes) -> None:
    """Ask OpenSSL, by ``cryptography``; an ``Equation``."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (_LibraryRefusal, ValueError) as error:
        raise InvalidSignature("the Ed25519 signature does not hold") from error


def libsodium() -> Equation | None:
    """Give the equation of libsodium, by PyNaCl; None where it is not installed."""
    try:
        from nacl.bindings import crypto_sign_open
        from nacl.exceptions import BadSignatureError
    except ModuleNotFoundError:
        return None

    def equation(key: bytes, signature: bytes, message: bytes) -> None:
        try:
            crypto_sign_open(signature + message, key)
        except BadSignatureError as error:
            raise InvalidSignature("the Ed25519 signature does not hold") from error

    return equation


def choose(found: Equation | None) -> Equation:
    """Choose what was found beside OpenSSL, unless it is with cofactor, as newer libsodiums are."""
    if found is None:
        return openssl
    try:
        found(*_COFACTOR_ONLY)
    except InvalidSignature:
        return found
    return openssl


def _strict_y(point: bytes, what: str) -> int:
    if len(point) != PUBLIC_KEY_LENGTH:
        raise Malformed(f"an Ed25519 point has {PUBLIC_KEY_LENGTH} bytes, the {what} has {len(point)}")
    y = int.from_bytes(point, "little") & (2**255 - 1)
    if y >= PRIME:
        raise InvalidSignature(f"the {what} is not canonically encoded")
    if y in _SMALL_ORDER:
        raise InvalidSignature(f"the {what} is a point of small order")
    return y


_EQUATION = choose(libsodium())
