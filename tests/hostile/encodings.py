"""Binary documents with two readings (rows I5 and I6): CBOR that is not of our profile, and BER in the place of DER."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Node = tuple[int, "list[Node] | bytes"]
Write = Callable[[int, bytes], bytes]
CONSTRUCTED = 0x20

# RFC 8949 and the registry of CBOR tags. Each is put alone, into an array, a map and a map's key.
CBOR = {
    "an unsigned bignum": "c240", "a negative bignum": "c340", "a bignum of one": "c24101", "a decimal fraction": "c48221196ab3",
    "a bigfloat": "c5822003", "a date as text": "c074323031332d30332d32315432303a30343a30305a", "a date as a number": "c11a514b67b0",
    "base64 to come": "d5420102", "encoded CBOR": "d8184100", "a string reference": "d81900", "a namespace of references": "d9010080",
    "a shared value": "d81c80", "a reference to one": "d81d00", "a reference to itself": "d81c81d81d00", "a URI": "d820626162",
    "a regular expression": "d82365282e2a292b", "a MIME message": "d8246161", "a language's text": "d82682626161626161", "a UUID": "d82550" + "00" * 16,
    "a set": "d9010280", "itself described": "d9d9f700", "a tag in eight bytes": "dbffffffffffffffff00", "a tag in a tag": "d2d200",
    "23 in two bytes": "1817", "255 in three": "1900ff", "65535 in five": "1a0000ffff", "2^32-1 in nine": "1b00000000ffffffff",
    "-24 in two bytes": "3817", "-1 in nine": "3b0000000000000000", "a string's length in two": "580100", "a text's length in two": "780161",
    "an array's length in two": "980100", "a map's length in two": "b8010000", "a tag in two bytes": "d81200", "a reserved length": "1c",
    "a reserved length of 30": "1e", "a string in chunks": "5f4100ff", "a text in chunks": "7f6161ff", "an empty text in chunks": "7fff",
    "an array without an end": "9f01ff", "an empty one": "9fff", "a number without an end": "1f", "a tag without an end": "df00",
    "half a float": "f90000", "a float": "fa00000000", "a double": "fb0000000000000000", "NaN": "f97e00", "infinity": "f97c00",
    "minus zero": "f98000", "a big double": "fb7ff0000000000000", "undefined": "f7", "simple 0": "e0", "simple 19": "f3", "simple 24": "f818", "simple 20 in two bytes": "f814",
    "simple 255": "f8ff", "a lone break": "ff", "a break in an array": "8200ff", "a key twice": "a200000001", "a text key twice": "a2616100616101",
    "a key twice, without an end": "bf00000001ff", "a key in two spellings": "a20000180001", "a true key": "a1f500", "a null key": "a1f600",
    "a key of bytes": "a1410000", "a key that is an array": "a18000", "a key that is a map": "a1a000", "a key without a value": "a100", "a map cut by a break": "bf00ff",
    "text of latin-1": "61e9", "text of surrogates": "63eda080", "overlong text": "62c080", "text beyond Unicode": "64f4908080", "a cut text": "6261",
    "a cut string": "4200", "a string of 2^63": "5b7fffffffffffffff", "an array of 2^63": "9b7fffffffffffffff", "a map of 2^63": "bb7fffffffffffffff",
    "a string of 4 GiB": "5affffffff", "an array of 4 GiB": "9affffffff00", "too deep an array": "81" * 9 + "00", "too deep a map": "a100" * 9 + "00",
    "deeper than the stack": "81" * 30_000 + "00", "maps deeper than the stack": "bf00" * 15_000, "more items than 4096": "991388" + "00" * 5000,
    "more keys than 4096": "b90bb8" + "".join(f"19{n:04x}00" for n in range(0x100, 0x100 + 3000)), "something behind": "0000", "nothing": "", "a break behind": "00ff",
}  # fmt: skip


def cbor_cases() -> Iterator[tuple[str, bytes]]:
    """Give (name, bytes), none of them in our profile."""
    for name, text in CBOR.items():
        data = bytes.fromhex(text)
        yield name, data
        yield f"{name}, in an array", b"\x82\x00" + data
        yield f"{name}, as a value", b"\xa1\x61a" + data
        yield f"{name}, as a key", b"\xa1" + data + b"\x00"


def tlv(tag: int, content: bytes) -> bytes:
    """Write one element of DER."""
    return bytes([tag]) + _length(len(content)) + content


@dataclass(frozen=True, slots=True)
class Change:
    """A way to write an element that DER forbids, or that is too much, for the tags that it fits."""

    name: str
    fits: Callable[[int], bool]
    write: Write


def _long(tag: int, content: bytes) -> bytes:
    shortest = _length(len(content))
    longer = b"\x81" + shortest if len(shortest) == 1 else bytes([shortest[0] + 1, 0]) + shortest[1:]
    return bytes([tag]) + longer + content


CHANGES = (
    Change("a length too long", lambda tag: True, _long),
    Change("a high tag number", lambda tag: True, lambda tag, content: bytes([tag & 0xE0 | 0x1F]) + tlv(tag & 0x1F, content)),
    Change("no length", lambda tag: bool(tag & CONSTRUCTED), lambda tag, content: bytes([tag, 0x80]) + content + bytes(2)),
    Change("a byte behind", lambda tag: bool(tag & CONSTRUCTED), lambda tag, content: tlv(tag, content + b"\0")),
    Change("an element behind", lambda tag: bool(tag & CONSTRUCTED), lambda tag, content: tlv(tag, content + b"\5\0")),
    Change("in parts", lambda tag: not tag & CONSTRUCTED, lambda tag, content: tlv(tag | CONSTRUCTED, tlv(tag, content))),
    Change("an integer with a zero before", lambda tag: tag == 2, lambda tag, content: tlv(tag, b"\0" + content)),
    Change("an empty integer", lambda tag: tag == 2, lambda tag, content: tlv(tag, b"")),
    Change("true as one", lambda tag: tag == 1, lambda tag, content: tlv(tag, b"\1")),
    Change("a default written out", lambda tag: tag == 1, lambda tag, content: tlv(tag, b"\0")),
    Change("a name's number with a zero before", lambda tag: tag == 6, lambda tag, content: tlv(tag, content[:1] + b"\x80" + content[1:])),
    Change("seven unused bits that are set", lambda tag: tag == 3, lambda tag, content: tlv(tag, b"\7" + content[1:-1] + b"\xff")),
)  # fmt: skip


def der_cases(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Change each element of a good document in each way; everything around it keeps its true length."""
    nodes = _tree(good)
    for change in CHANGES:
        for place, tag in _places(nodes, ()):
            if change.fits(tag):
                yield f"{change.name} at {place}", _rewrite(nodes, place, change.write)


def replaced(good: bytes, place: tuple[int, ...], element: bytes) -> bytes:
    """Put another element at a place, as a path of numbers from outside to inside."""
    return _rewrite(_tree(good), place, lambda tag, content: element)


def _tree(data: bytes) -> list[Node]:
    """Cut DER into its elements, those within the constructed ones too."""
    found: list[Node] = []
    while data:
        length, start = data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        content, tag = data[start : start + length], data[0]
        found.append((tag, _tree(content) if tag & CONSTRUCTED else content))
        data = data[start + length :]
    return found


def _places(nodes: list[Node], above: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    for number, (tag, content) in enumerate(nodes):
        yield (*above, number), tag
        if isinstance(content, list):
            yield from _places(content, (*above, number))


def _rewrite(nodes: list[Node], place: tuple[int, ...], write: Write) -> bytes:
    made = []
    for number, (tag, content) in enumerate(nodes):
        here = place[:1] == (number,)
        inner = content if isinstance(content, bytes) else _rewrite(content, place[1:] if here else (), write)
        made.append(write(tag, inner) if here and len(place) == 1 else tlv(tag, inner))
    return b"".join(made)


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    size = (length.bit_length() + 7) // 8
    return bytes([0x80 | size]) + length.to_bytes(size, "big")
