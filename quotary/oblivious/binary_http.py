"""Binary HTTP messages (RFC 9292): what an Oblivious HTTP capsule holds.

Both forms are read, known-length and indeterminate; requests are written in the first, answers in the second,
because an answer is sealed while it is made. Trailers and informational answers are refused: nothing here has
a use for them, and a field that is dropped silently is a field that two readers see differently.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from quotary.errors import Malformed, Unsupported

KNOWN_REQUEST, KNOWN_RESPONSE, REQUEST, RESPONSE = range(4)
MAX_FIELDS = 64
MAX_FIELD = 16_384
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]{1,256}")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}")
_VISIBLE = re.compile(rb"[!-~]*")

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request (RFC 9292 section 3.4): names of fields are lower case, text is Latin-1 as HTTP has it."""

    method: str
    scheme: str
    authority: str
    path: str
    fields: Fields = ()
    content: bytes = b""

    def encode(self) -> bytes:
        control = (self.method, self.scheme, self.authority, self.path)
        head = b"".join(_prefixed(item.encode("latin-1")) for item in control)
        return varint(KNOWN_REQUEST) + head + _prefixed(_lines(self.fields)) + _prefixed(self.content)

    @classmethod
    def parse(cls, data: bytes) -> "Request":
        """Read a whole request, or raise ``Malformed`` (or ``Unsupported`` for trailers)."""
        reader = Reader(data)
        framing = reader.varint()
        if framing not in (KNOWN_REQUEST, REQUEST):
            raise Malformed(f"binary HTTP has the framing indicator {framing}, a request has 0 or 2")
        method = reader.matched(_TOKEN, "method")
        scheme, authority, path = (reader.matched(_VISIBLE, what) for what in ("scheme", "authority", "path"))
        fields, content = (_known if framing == KNOWN_REQUEST else _indeterminate)(reader)
        return cls(method, scheme, authority, path, fields, content)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status (200 to 599) and fields of an answer."""

    status: int
    fields: Fields = ()

    def encode(self) -> bytes:
        """Begin an answer of indeterminate length; ``chunk`` and ``END`` follow."""
        return varint(RESPONSE) + varint(self.status) + _lines(self.fields) + b"\0"


END = b"\0\0"
"""The end of the content, and of the trailers that are not there."""


def chunk(data: bytes) -> bytes:
    """Encode a piece of an answer's content; an empty one would be its end."""
    return _prefixed(data) if data else b""


class ResponseReader:
    """Reads an answer while it arrives: ``feed`` returns the content that is complete so far.

    head:  status and fields once they have arrived
    """

    __slots__ = ("_buffer", "_ended", "_known", "head")

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self._buffer = b""
        self._known = self._ended = False

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        if self._ended:
            _check_padding(self._buffer)
            return b""
        if self.head is None and not self._start():
            return b""
        return b"" if self._known else b"".join(self._chunks())

    def close(self) -> bytes:
        """Say that nothing more comes; returns what a known-length answer held, raises where it was cut."""
        if self._known:
            reader = Reader(self._buffer)
            fields, content = _known(reader)
            assert self.head is not None
            self.head = ResponseHead(self.head.status, fields)
            self._ended = True
            return content
        if not self._ended:
            raise Malformed("binary HTTP answer ends before its end")
        return b""

    def _start(self) -> bool:
        reader = Reader(self._buffer)
        try:
            framing, status = reader.varint(), reader.varint()
            if framing not in (KNOWN_RESPONSE, RESPONSE):
                raise Malformed(f"binary HTTP has the framing indicator {framing}, an answer has 1 or 3")
            if 100 <= status < 200:
                raise Unsupported("informational answers are not read")
            if not 200 <= status <= 599:
                raise Malformed(f"binary HTTP answer has the status {status}, not one of 200 to 599")
            self._known = framing == KNOWN_RESPONSE
            self.head = ResponseHead(status, () if self._known else _terminated(reader))
        except Cut:
            if len(self._buffer) > 2 * MAX_FIELD:
                raise Malformed(f"binary HTTP answer has more than {2 * MAX_FIELD} bytes of fields") from None
            return False
        self._buffer = reader.rest()
        return True

    def _chunks(self) -> Iterator[bytes]:
        while True:
            reader = Reader(self._buffer)
            try:
                found = reader.prefixed()
                if not found:
                    _no_trailers(_terminated(reader))
                    _check_padding(reader.rest())
                    self._ended = True
            except Cut:
                return
            self._buffer = b"" if self._ended else reader.rest()
            if self._ended:
                return
            yield found


class Cut(Malformed):
    """The message ends inside something."""


class Reader:
    """Reads the pieces of a message from its front."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)

    def rest(self) -> bytes:
        return self._data[self._at :]

    def take(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) != length:
            raise Cut(f"binary HTTP has {len(found)} bytes where {length} were announced")
        self._at += length
        return found

    def varint(self) -> int:
        """Read an integer of 1, 2, 4 or 8 bytes (RFC 9000 section 16); any of these lengths is allowed."""
        first = self.take(1)[0]
        length = 1 << (first >> 6)
        return int.from_bytes(bytes([first & 0x3F]) + self.take(length - 1), "big")

    def prefixed(self) -> bytes:
        return self.take(self.varint())

    def matched(self, pattern: re.Pattern[bytes], what: str) -> str:
        found = self.prefixed()
        if pattern.fullmatch(found) is None:
            raise Malformed(f"binary HTTP has a {what} of characters that are not allowed")
        return found.decode("latin-1")


def varint(value: int) -> bytes:
    """Encode an integer below 2^62 in the fewest bytes (RFC 9000 section 16)."""
    for exponent, limit in enumerate((1 << 6, 1 << 14, 1 << 30, 1 << 62)):
        if value < limit:
            length = 1 << exponent
            return ((exponent << (8 * length - 2)) | value).to_bytes(length, "big")
    raise ValueError(f"{value} does not fit into 62 bits")


def _known(reader: Reader) -> tuple[Fields, bytes]:
    """Read what may be left out from the end on (section 3.8): fields, content, trailers, padding."""
    fields: Fields = ()
    content = b""
    if not reader.ended:
        fields = _all_lines(Reader(reader.prefixed()))
    if not reader.ended:
        content = reader.prefixed()
    if not reader.ended:
        _no_trailers(_all_lines(Reader(reader.prefixed())))
    _check_padding(reader.rest())
    return fields, content


def _indeterminate(reader: Reader) -> tuple[Fields, bytes]:
    fields = _terminated(reader)
    pieces = []
    while not reader.ended and (found := reader.prefixed()):
        pieces.append(found)
    if not reader.ended:
        _no_trailers(_terminated(reader))
    _check_padding(reader.rest())
    return fields, b"".join(pieces)


def _terminated(reader: Reader) -> Fields:
    found: list[tuple[str, str]] = []
    while name := reader.prefixed():
        found.append(_line(name, reader.prefixed()))
        _check_count(found)
    return tuple(found)


def _all_lines(reader: Reader) -> Fields:
    found: list[tuple[str, str]] = []
    while not reader.ended:
        found.append(_line(reader.prefixed(), reader.prefixed()))
        _check_count(found)
    return tuple(found)


def _check_count(found: list[tuple[str, str]]) -> None:
    if len(found) > MAX_FIELDS:
        raise Malformed(f"binary HTTP has more than {MAX_FIELDS} fields")


def _line(name: bytes, value: bytes) -> tuple[str, str]:
    if _NAME.fullmatch(name) is None or len(value) > MAX_FIELD or _VALUE.fullmatch(value) is None:
        raise Malformed("binary HTTP has a field whose name or value is not one")
    return name.decode("latin-1"), value.decode("latin-1")


def _no_trailers(found: Fields) -> None:
    if found:
        raise Unsupported("trailers are not read")


def _check_padding(rest: bytes) -> None:
    if rest.strip(b"\0"):
        raise Malformed("binary HTTP has padding that is not zero")


def _lines(fields: Fields) -> bytes:
    return b"".join(
        _prefixed(name.encode("latin-1")) + _prefixed(value.encode("latin-1")) for name, value in fields
    )


def _prefixed(data: bytes) -> bytes:
    return varint(len(data)) + data
