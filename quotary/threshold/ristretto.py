"""The group ristretto255 (RFC 9496), computed by libsodium in constant time.

Elements and scalars are their 32 canonical bytes, scalars little-endian and below the order. `cryptography`
has no such group and PyNaCl does not bind it, so libsodium's own functions are called, which have been there
since its version 1.0.18 (docs/decisions/0025-threshold-keys.md). Nothing else in the project may load a
library so.
"""

import ctypes
from collections.abc import Iterable, Sequence
from functools import reduce

from quotary.ed25519 import ORDER
from quotary.errors import Malformed, Unsupported

ELEMENT_LENGTH = SCALAR_LENGTH = 32
WIDE_LENGTH = 64
"""Uniform bytes that become an element or a scalar without bias."""

IDENTITY = bytes(ELEMENT_LENGTH)
ZERO = bytes(SCALAR_LENGTH)

# Debian 12 and 13 by their sonames; the development name last.
_NAMES = ("libsodium.so.23", "libsodium.so.26", "libsodium.so")


Bytes = bytes | bytearray
"""A scalar that its owner wipes is a ``bytearray``."""


# libsodium up to 1.0.18 at least ignores this bit of an element's last byte, where RFC 9496 refuses it.
_UNUSED = 0x80


def scalar(number: int) -> bytes:
    """Write a small public number, such as a node's, as a scalar."""
    return (number % ORDER).to_bytes(SCALAR_LENGTH, "little")


def check_scalar(data: Bytes, what: str) -> None:
    """Require a scalar that is canonical and not zero, or raise ``Malformed``."""
    if len(data) != SCALAR_LENGTH or not 0 < int.from_bytes(data, "little") < ORDER:
        raise Malformed(f"{what} is not a scalar of ristretto255, or is zero or not reduced")


def check_element(data: bytes, what: str) -> bytes:
    """Give an element that is canonically encoded and not the identity, or raise ``Malformed``."""
    if len(data) != ELEMENT_LENGTH or data[-1] & _UNUSED or data == IDENTITY or not _is_valid(data):
        raise Malformed(f"{what} is not an element of ristretto255, or is its identity")
    return data


def scalar_from_wide(wide: bytes) -> bytes:
    """Reduce 64 uniform bytes (little-endian) to a scalar."""
    assert len(wide) == WIDE_LENGTH
    return _call("crypto_core_ristretto255_scalar_reduce", wide)


def element_from_wide(wide: bytes) -> bytes:
    """Map 64 uniform bytes to an element whose logarithm nobody knows (RFC 9496 section 4.3.4)."""
    assert len(wide) == WIDE_LENGTH
    return _call("crypto_core_ristretto255_from_hash", wide)


def scalar_add(a: Bytes, b: Bytes) -> bytes:
    return _call("crypto_core_ristretto255_scalar_add", a, b)


def scalar_sub(a: Bytes, b: Bytes) -> bytes:
    return _call("crypto_core_ristretto255_scalar_sub", a, b)


def scalar_mul(a: Bytes, b: Bytes) -> bytes:
    return _call("crypto_core_ristretto255_scalar_mul", a, b)


def scalar_invert(a: bytes) -> bytes:
    """Give 1/a; a is not zero."""
    assert a != ZERO
    return _call("crypto_core_ristretto255_scalar_invert", a)


def add(a: bytes, b: bytes) -> bytes:
    """Add two elements; one that is none is ``Malformed``."""
    return _call("crypto_core_ristretto255_add", a, b)


def base_multiply(factor: Bytes) -> bytes:
    """Multiply the group's generator."""
    return IDENTITY if factor == ZERO else _call("crypto_scalarmult_ristretto255_base", factor)


def multiply(factor: Bytes, element: bytes) -> bytes:
    """Multiply an element; one that is none is ``Malformed``."""
    if factor == ZERO or element == IDENTITY:  # of which the library makes an error
        return IDENTITY
    return _call("crypto_scalarmult_ristretto255", factor, element)


def sum_of(elements: Iterable[bytes]) -> bytes:
    """Add up elements; of none this is the identity."""
    return reduce(add, elements, IDENTITY)


def combine(factors: Sequence[Bytes], elements: Sequence[bytes]) -> bytes:
    """Add up elements, each multiplied by its factor."""
    return sum_of(multiply(factor, element) for factor, element in zip(factors, elements, strict=True))


def wipe(secret: bytearray) -> None:
    """Overwrite a secret in memory, in a way that no compiler leaves out."""
    if secret:
        _SODIUM.sodium_memzero(_pointer(secret), ctypes.c_size_t(len(secret)))


def _call(name: str, *inputs: Bytes) -> bytes:
    """Call a function that writes 32 bytes from inputs of a known length; -1 means that one is no element."""
    assert all(len(item) in (SCALAR_LENGTH, WIDE_LENGTH) for item in inputs)
    if any(len(item) == ELEMENT_LENGTH and item[-1] & _UNUSED for item in inputs):
        raise Malformed("not an element of ristretto255")
    out = ctypes.create_string_buffer(ELEMENT_LENGTH)
    if getattr(_SODIUM, name)(out, *map(_pointer, inputs)) not in (0, None):
        raise Malformed("not an element of ristretto255")
    return out.raw


def _is_valid(data: bytes) -> bool:
    return bool(_SODIUM.crypto_core_ristretto255_is_valid_point(data))


def _pointer(data: Bytes) -> object:
    """Point into a secret that is to be wiped instead of copying it."""
    return data if isinstance(data, bytes) else (ctypes.c_char * len(data)).from_buffer(data)


def _load() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if library.sodium_init() >= 0 and hasattr(library, "crypto_core_ristretto255_from_hash"):
            for returns_nothing in ("reduce", "add", "sub", "mul"):
                getattr(library, f"crypto_core_ristretto255_scalar_{returns_nothing}").restype = None
            library.sodium_memzero.restype = None
            return library
    raise Unsupported(
        "this needs libsodium 1.0.18 or newer with ristretto255, which is not installed",
        next_command="sudo apt-get install libsodium23",
    )


_SODIUM = _load()
