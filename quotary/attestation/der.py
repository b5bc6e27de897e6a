"""A strict reader for the little DER that vendors put into certificate extensions (X.690).

Definite lengths in their shortest form, one-byte tags, nothing behind the end; ``Malformed`` for anything
else.
"""

from quotary.errors import Malformed

# No vendor's extension has half as many in a row.
MAX_ITEMS = 64

BOOLEAN, INTEGER, OCTETS, OID, ENUMERATED, SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30


def items(data: bytes) -> list[tuple[int, bytes]]:
    """Cut bytes into at most ``MAX_ITEMS`` (tag, content) pairs that fill them exactly."""
    found: list[tuple[int, bytes]] = []
    while data:
        if len(found) == MAX_ITEMS:
            raise Malformed(f"DER has more than {MAX_ITEMS} items in a row")
        tag, content, data = _next(data)
        found.append((tag, content))
    return found


def members(data: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Read ``SEQUENCE OF SEQUENCE {OID, value}`` as a mapping from OID content to (tag, content)."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for tag, content in items(data):
        pair = items(content) if tag == SEQUENCE else []
        if len(pair) != 2 or pair[0][0] != OID or pair[0][1] in found:
            raise Malformed("not a list of different named values")
        _require_shortest(pair[0][1])
        found[pair[0][1]] = pair[1]
    return found


def integer(value: tuple[int, bytes], high: int) -> int:
    """Read an INTEGER or ENUMERATED from 0 to ``high``."""
    tag, content = value
    found = int.from_bytes(content, "big", signed=True)
    if tag not in (INTEGER, ENUMERATED) or not 0 <= found <= high:
        raise Malformed(f"not an integer from 0 to {high}")
    if len(content) != found.bit_length() // 8 + 1:
        raise Malformed("not DER: an integer in another than its shortest form")
    return found


def octets(value: tuple[int, bytes], length: int) -> bytes:
    """Read an OCTET STRING of exactly ``length`` bytes."""
    tag, content = value
    if tag != OCTETS or len(content) != length:
        raise Malformed(f"not an octet string of {length} bytes")
    return content


def _require_shortest(name: bytes) -> None:
    """X.690 section 8.19.2: no number of an OID begins with a zero, and the last one ends."""
    ends = [-1, *(at for at, byte in enumerate(name) if byte < 0x80)]
    if not name or ends[-1] != len(name) - 1 or any(name[at + 1 : at + 2] == b"\x80" for at in ends):
        raise Malformed("not DER: an object identifier in another than its shortest form")


def _next(data: bytes) -> tuple[int, bytes, bytes]:
    if len(data) < 2 or data[0] & 0x1F == 0x1F:
        raise Malformed("not DER: no tag and length")
    length, start = data[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start], "big")
        if start > 4 or length < 0x80 or (start == 4 and length < 0x100):
            raise Malformed("not DER: a length in another than its shortest form")
    if len(data) < start + length:
        raise Malformed("not DER: shorter than it says")
    return data[0], data[start : start + length], data[start + length :]
