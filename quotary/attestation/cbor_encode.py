"""A deterministic CBOR writer (RFC 8949, section 4.2.1): one value, one sequence of bytes.

Shortest lengths, no indefinite ones, map keys in the order of their bytes. What it writes without tags
``cbor.decode`` reads; tags are for formats that others read (CoRIM).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.cbor import ARRAY, BYTES, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED
from quotary.errors import Malformed

_SIMPLE = {False: 20, True: 21, None: 22}
_LARGEST = 1 << 64


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a tag number."""

    tag: int
    value: "Encodable"


Encodable = int | bytes | str | bool | None | Sequence["Encodable"] | Mapping[int | str, "Encodable"] | Tagged
"""What can be written; sequences become arrays."""


def encode(value: Encodable) -> bytes:
    """Write one value; raises ``Malformed`` for text that is not UTF-8 and integers beyond 64 bits."""
    if value is None or isinstance(value, bool):
        return _head(SIMPLE, _SIMPLE[value])
    if isinstance(value, int):
        return _head(UNSIGNED, value) if value >= 0 else _head(NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return _head(BYTES, len(value)) + value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Tagged):
        return _head(TAG, value.tag) + encode(value.value)
    if isinstance(value, Mapping):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
    return _head(ARRAY, len(value)) + b"".join(encode(item) for item in value)


def _text(value: str) -> bytes:
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed("text for CBOR has half of a surrogate pair") from error
    return _head(TEXT, len(data)) + data


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    if number >= _LARGEST:
        raise Malformed("an integer for CBOR has more than 64 bits")
    power = next(power for power in range(4) if number >> (8 << power) == 0)
    return bytes([major << 5 | 24 + power]) + number.to_bytes(1 << power, "big")
