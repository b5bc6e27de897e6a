"""A strict CBOR reader (RFC 8949), for evidence that others signed.

It reads integers, byte and text strings, arrays, maps, booleans and null, each in its shortest form. Maps may
be of indefinite length, because AWS writes them so. Refused are duplicate keys, strings in chunks, arrays of
indefinite length, tags, floats, other simple values, bytes behind the end, and anything deep or long.
Whatever the bytes, only ``Malformed`` comes out.
"""

from quotary.errors import Malformed

MAX_DEPTH = 8
MAX_ITEMS = 4096

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)

_INDEFINITE = 31
_BREAK = 0xFF
_SIMPLE = {20: False, 21: True, 22: None}

Value = int | bytes | str | bool | None | tuple["Value", ...] | dict[int | str, "Value"]
"""What a CBOR item is read as; arrays are tuples."""


def decode(data: bytes, limit: int) -> Value:
    """Read one item that fills ``data``, which has at most ``limit`` bytes."""
    if len(data) > limit:
        raise Malformed(f"CBOR has {len(data)} bytes, at most {limit} are allowed")
    reader = _Reader(data)
    value = reader.item(0)
    if reader.at != len(data):
        raise Malformed(f"CBOR has {len(data) - reader.at} bytes behind its end")
    return value


class _Reader:
    """A position in the bytes and the number of items that may still be read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.left = MAX_ITEMS

    def item(self, depth: int) -> Value:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise Malformed(f"CBOR is deeper than {MAX_DEPTH} or has more than {MAX_ITEMS} items")
        initial = self.take(1)[0]
        major, info = initial >> 5, initial & 31
        if major == MAP:
            return self.map(info, depth)
        if major == SIMPLE:
            return self.simple(info)
        number = self.number(info)
        match major:
            case 0:
                return number
            case 1:
                return -1 - number
            case 2:
                return self.take(number)
            case 3:
                return self.text(number)
            case 4:
                return tuple(self.item(depth + 1) for _ in range(self.fitting(number)))
        raise Malformed(f"CBOR has the tag {number}, none is allowed")

    def take(self, length: int) -> bytes:
        found = self.data[self.at : self.at + length]
        if len(found) != length:
            raise Malformed(f"CBOR ends {length - len(found)} bytes early")
        self.at += length
        return found

    def number(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise Malformed("CBOR has an indefinite or reserved length where none is allowed")
        length = 1 << (info - 24)
        number = int.from_bytes(self.take(length), "big")
        if number < 24 or (length > 1 and number >> (4 * length) == 0):
            raise Malformed("CBOR has a number in another than its shortest form")
        return number

    def fitting(self, count: int) -> int:
        # Every item has a byte at least, so that a false count cannot make us wait.
        if count > len(self.data) - self.at:
            raise Malformed(f"CBOR says {count} items, {len(self.data) - self.at} bytes are left")
        return count

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("CBOR has text that is not UTF-8") from error

    def simple(self, info: int) -> bool | None:
        if info not in _SIMPLE:
            raise Malformed("CBOR has a float, a break or a simple value that is not allowed")
        return _SIMPLE[info]

    def map(self, info: int, depth: int) -> dict[int | str, Value]:
        found: dict[int | str, Value] = {}
        left = -1 if info == _INDEFINITE else self.fitting(self.number(info))
        while left != 0:
            if left < 0 and self.data[self.at : self.at + 1] == bytes([_BREAK]):
                self.at += 1
                break
            key = self.item(depth + 1)
            if isinstance(key, bool) or not isinstance(key, int | str) or key in found:
                raise Malformed("CBOR has a map key that is neither a number nor text, or has it twice")
            found[key] = self.item(depth + 1)
            left -= 1
        return found
