"""The one text form of every document: RFC 8785 (JCS), narrowed until equal meaning is equal bytes.

Design section 4. A document is UTF-8 JSON of objects, arrays, strings, booleans and integers. Floats and
nulls do not exist (absent instead), integers stay within 2^53 - 1, member names are ``[A-Za-z0-9._:/-]``,
strings hold no control characters and no surrogates, nesting ends at 16. Reading means: parse, write again,
compare; so a second spelling is refused without a list of spellings. Whatever the input, readers raise
``Malformed`` and nothing else.
"""

import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from quotary.codec import CODEC
from quotary.errors import Malformed

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16
MAX_NAME = 256

# The names of a whole document, one a line: a match of them all takes as long as one of each object's.
_MEMBERS = re.compile(r"[A-Za-z0-9._:/-]{1,256}(?:\n[A-Za-z0-9._:/-]{1,256})*")
_NAME = re.compile(r"[a-z0-9._:/-]{1,256}")
# Unicode category Cc, and the surrogates that UTF-8 cannot carry.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_BUT_NEWLINE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_IDENTITY = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

T = TypeVar("T")


def canonical(value: object, *, multiline: bool = False) -> bytes:
    """Write a document's one and only bytes, or raise ``Malformed`` for what a document cannot hold.

    multiline: strings may hold line feeds (a policy carries a text file verbatim); never in statements.
    """
    _check(value)
    # Of what is left here (no float, no null, ASCII names, no control characters) RFC 8785 and the codecs
    # give the same bytes: names sorted, no spaces, only quotation mark and backslash escaped. Tests
    # compare.
    try:
        data = CODEC.write(value)
    except UnicodeEncodeError as error:
        raise Malformed("a string holds a control character or a surrogate") from error
    # A string that needs escaping is rare, and one that JSON writes as it stands shows in the text.
    if b"\\" in data or not data.isascii() or b"\x7f" in data:
        _check_strings(value, _CONTROL_BUT_NEWLINE if multiline else _CONTROL)
    return data


def parse_canonical(data: bytes, limit: int, *, multiline: bool = False) -> object:
    """Read a document of at most ``limit`` bytes that is in its canonical form."""
    if len(data) > limit:
        raise Malformed(f"document has {len(data)} bytes, at most {limit} are allowed")
    try:
        value = CODEC.read(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("not a JSON document of our kind") from error
    if canonical(value, multiline=multiline) != data:
        raise Malformed("not in canonical form: RFC 8785 gives other bytes")
    return value


def parse_json(data: bytes, what: str) -> object:
    """Read JSON as others write it, in any spacing and order; a member twice is ``Malformed``."""
    try:
        found: object = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON") from error
    return found


def b64(data: bytes) -> str:
    """Write bytes as padded standard base64 (RFC 4648 section 4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def unb64(text: str, *, length: int | None = None) -> bytes:
    """Read base64 that encodes again to the same text; ``length`` is in bytes."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # of which binascii.Error is one, as is what text beyond ASCII gives
        raise Malformed("not base64") from error
    # The reader was strict: all that can differ is what padding leaves over of the last four letters.
    if text[-4:] != b64(data[(len(data) - 1) // 3 * 3 :]):
        raise Malformed("not canonical base64")
    if length is not None and len(data) != length:
        raise Malformed(f"base64 holds {len(data)} bytes, {length} are needed")
    return data


def hexbytes(text: str, length: int) -> bytes:
    """Read lower-case hex of exactly ``length`` bytes."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != length or found.hex() != text:  # spaces and capitals would be read, too
        raise Malformed(f"not {2 * length} lower-case hex digits")
    return found


def parse_identity(text: str) -> str:
    """Read a statement id or key id: ``sha256:`` and 64 lower-case hex digits."""
    if _IDENTITY.fullmatch(text) is None:
        raise Malformed("not sha256: and 64 lower-case hex digits")
    return text


def time_text(at: datetime) -> str:
    """Write an aware time as RFC 3339 ``Z``; a fraction of a second is our own mistake."""
    assert at.tzinfo is not None
    assert at.microsecond == 0
    return f"{(at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat()[:19]}Z"


def parse_time(text: str) -> datetime:
    """Read ``2026-11-21T04:05:06Z``: whole seconds, UTC, from 1970 on."""
    if _TIME.fullmatch(text) is None or text < "1970":
        raise Malformed("not a time like 2026-11-21T04:05:06Z")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed("not a time that exists") from error


class Fields:
    """Read an object's members one by one; ``done()`` refuses what nobody asked for.

    what: names the object in messages, e.g. ``release row``
    """

    __slots__ = ("_members", "_read", "_what")

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{what} is not an object")
        self._members: Mapping[str, object] = value
        self._what = what
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Say whether the member is present; reading it remains to be done."""
        return name in self._members

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """Read a member that may be absent: ``fields.optional("until", fields.time)``."""
        return read(name) if name in self._members else None

    def value(self, name: str) -> object:
        """Read a member of any type."""
        try:
            found = self._members[name]
        except KeyError:
            self._refuse(name, "is missing")
        self._read.add(name)
        return found

    def text(self, name: str, limit: int = 4096) -> str:
        """Read a string of 1 to ``limit`` characters."""
        found = self._members.get(name)
        if not isinstance(found, str):
            self._refuse(name, "is not a string" if name in self._members else "is missing")
        if not 1 <= len(found) <= limit:
            self._refuse(name, f"has {len(found)} characters, 1 to {limit} are allowed")
        self._read.add(name)
        return found

    def name(self, name: str, limit: int = MAX_NAME) -> str:
        """Read a string of ``[a-z0-9._:/-]``."""
        found = self.text(name, limit)
        if _NAME.fullmatch(found) is None:
            self._refuse(name, "is not of the characters a-z 0-9 . _ : / -")
        return found

    def identity(self, name: str) -> str:
        """Read a statement id or key id: ``sha256:`` and 64 lower-case hex digits."""
        text = self.text(name, 71)
        try:
            return parse_identity(text)
        except Malformed as error:
            self._refuse(name, str(error), error)

    def choice(self, name: str, *allowed: str) -> str:
        """Read a string that is one of ``allowed``."""
        found = self.value(name)
        if not isinstance(found, str) or found not in allowed:
            self._refuse(name, f"is not one of {', '.join(allowed)}")
        return found

    def integer(self, name: str, low: int = 0, high: int = MAX_INTEGER) -> int:
        """Read an integer from ``low`` to ``high``, both included."""
        found = self.value(name)
        if not isinstance(found, int) or isinstance(found, bool):
            self._refuse(name, "is not an integer")
        if not low <= found <= high:
            self._refuse(name, f"is {found}, allowed are {low} to {high}")
        return found

    def boolean(self, name: str) -> bool:
        """Read ``true`` or ``false``."""
        found = self.value(name)
        if not isinstance(found, bool):
            self._refuse(name, "is not true or false")
        return found

    def time(self, name: str) -> datetime:
        """Read an RFC 3339 time (see ``parse_time``)."""
        text = self.text(name, 20)
        try:
            return parse_time(text)
        except Malformed as error:
            self._refuse(name, str(error), error)

    def hexbytes(self, name: str, length: int) -> bytes:
        """Read ``length`` bytes in lower-case hex."""
        text = self.text(name, 2 * length)
        try:
            return hexbytes(text, length)
        except Malformed as error:
            self._refuse(name, str(error), error)

    def hexadecimal(self, name: str, limit: int) -> bytes:
        """Read 1 to ``limit`` bytes in lower-case hex."""
        text = self.text(name, 2 * limit)
        return self._named(name, lambda text: hexbytes(text, (len(text) + 1) // 2), text)

    def base64(self, name: str, *, length: int | None = None, limit: int = 1 << 20) -> bytes:
        """Read base64 of exactly ``length`` bytes, or of text up to ``limit`` characters."""
        return self._named(name, lambda text: unb64(text, length=length), self.text(name, limit))

    def items(self, name: str, limit: int, low: int = 0) -> tuple[object, ...]:
        """Read an array of ``low`` to ``limit`` items of any type."""
        found = self.value(name)
        if not isinstance(found, list):
            self._refuse(name, "is not an array")
        if not low <= len(found) <= limit:
            self._refuse(name, f"has {len(found)} items, {low} to {limit} are allowed")
        return tuple(found)

    def fields(self, name: str) -> "Fields":
        """Read a nested object of known members."""
        return Fields(self.value(name), f"{self._what}.{name}")

    def mapping(self, name: str, limit: int) -> dict[str, object]:
        """Read a nested object whose member names are data, at most ``limit`` of them."""
        found = self.value(name)
        if not isinstance(found, dict):
            self._refuse(name, "is not an object")
        if len(found) > limit:
            self._refuse(name, f"has {len(found)} members, at most {limit} are allowed")
        return dict(found)

    def done(self) -> None:
        """Refuse members that were not read."""
        if len(self._members) != len(self._read):  # only members that are there were read
            unknown = min(self._members.keys() - self._read)
            raise Malformed(f"{self._what} has the unknown member {unknown!r}")

    def _named(self, name: str, read: Callable[[str], T], text: str) -> T:
        try:
            return read(text)
        except Malformed as error:
            self._refuse(name, str(error), error)

    def _refuse(self, name: str, why: str, cause: Malformed | None = None) -> NoReturn:
        raise Malformed(f"{self._what}.{name} {why}") from cause


def _check(value: object) -> None:
    """Refuse types, numbers, names and nesting that a document does not have; strings are left.

    Level by level instead of by recursion: every entry of a log comes through here.
    """
    names: list[Any] = []
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for item in level:
            inside: Iterable[object]
            if isinstance(item, dict):
                names += item
                inside = item.values()
            elif isinstance(item, list):
                inside = item
            else:
                _check_scalar(item)
                continue
            if depth == MAX_DEPTH:
                raise Malformed(f"nested deeper than {MAX_DEPTH}")
            below += [found for found in inside if type(found) is not str]
        level, depth = below, depth + 1
    _check_names(names)


def _check_scalar(value: object) -> None:
    if isinstance(value, int):  # bool is one too, and allowed
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise Malformed("an integer is beyond 2^53 - 1")
    elif not isinstance(value, str):
        raise Malformed(f"a document cannot hold a {type(value).__name__}")


def _check_names(names: list[Any]) -> None:
    try:
        lines = "\n".join(names)
    except TypeError as error:
        raise Malformed("a member name is not a text") from error
    if names and (lines.count("\n") != len(names) - 1 or _MEMBERS.fullmatch(lines) is None):
        raise Malformed("a member name is not of the characters A-Z a-z 0-9 . _ : / -")


def _check_strings(value: object, control: re.Pattern[str]) -> None:
    if isinstance(value, str):
        if control.search(value) is not None:
            raise Malformed("a string holds a control character or a surrogate")
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_strings(item, control)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("an object has a member twice")
    return found


def _no_float(text: str) -> NoReturn:
    raise Malformed(f"a document cannot hold the number {text[:20]}")
