"""The one text form: what it holds, what it refuses, and the strict reader."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from quotary.canonical import (
    MAX_INTEGER,
    Fields,
    b64,
    canonical,
    hexbytes,
    parse_canonical,
    parse_identity,
    parse_time,
    time_text,
    unb64,
)
from quotary.errors import Malformed

names = st.text("ABCabc019._:/-", min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
scalars = texts | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@given(documents)
def test_every_document_reads_back_as_it_was_written(value: object) -> None:
    assert parse_canonical(canonical(value), 1 << 20) == value


@given(documents)
def test_our_writer_gives_the_bytes_of_rfc8785(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "text", ['"', "\\", "\\u0041", "/", "\u00a0", "\u2028", "\ufffd", "\U0001f600", "é", "<&>"]
)
def test_a_text_that_looks_special_is_written_as_rfc8785_writes_it(text: str) -> None:
    assert canonical({"b": [text], "a": text}) == rfc8785.dumps({"b": [text], "a": text})


@pytest.mark.parametrize("letter", [*map(chr, range(32)), "\x7f", "\x80", "\x9f", "\ud800"])
def test_a_control_character_or_a_surrogate_is_never_written(letter: str) -> None:
    for value in (letter, [f"a{letter}"], {"a": [{"b": f'"{letter}\\'}]}):
        with pytest.raises(Malformed, match="control character"):
            canonical(value)


@given(st.binary(max_size=60))
def test_bytes_are_a_document_or_malformed(data: bytes) -> None:
    try:
        value = parse_canonical(data, 60)
    except Malformed:
        return
    assert canonical(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1.0}', b'{"a":1e3}', b'{"a":null}', b"NaN", b"Infinity", b'{"a":1,"a":1}', b'{"b":1,"a":1}', b'{"a": 1}',
        b'{"a":1}\n', b"-0", b"01", b"9007199254740992", b"-9007199254740992", b"9" * 5000, b"[" * 100_000, b"\xff",
        b"\xef\xbb\xbf1", b'"\\ud800"', b'"\\u0041"', b'"\\n"', b'"\x7f"', b'"\\u0085"', b"[" * 17 + b"1" + b"]" * 17,
        b'{"":1}', b'{"a b":1}', b'{"\xc3\xa9":1}', b'{"' + b"a" * 257 + b'":1}', b"", b'"\\/"',
    ],
)  # fmt: skip
def test_a_second_spelling_or_a_foreign_value_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_canonical(data, 1 << 20)


def test_sixteen_levels_are_read_and_seventeen_are_not() -> None:
    deep: object = 1
    for _ in range(16):
        deep = [deep]
    assert parse_canonical(canonical(deep), 99) == deep
    with pytest.raises(Malformed, match="deeper than 16"):
        canonical([deep])


def test_a_document_beyond_the_limit_is_refused_unread() -> None:
    assert parse_canonical(b'"abc"', 5) == "abc"
    with pytest.raises(Malformed, match="has 5 bytes, at most 4"):
        parse_canonical(b'"abc"', 4)


def test_line_feeds_are_for_those_who_ask_for_them() -> None:
    assert parse_canonical(canonical("a\nb", multiline=True), 99, multiline=True) == "a\nb"
    for text in ("a\nb", "a\tb"):
        with pytest.raises(Malformed, match="control character"):
            canonical(text, multiline=text == "a\tb")


@pytest.mark.parametrize(
    "value",
    [
        1.5, None, b"a", (1,), {1: 2}, {"b": 1, 1: 2}, MAX_INTEGER + 1, "\ud800", {"": 1}, {"b\nc": 1}, {"b\n": 1}, {"\nb": 1},
        [{"b" * 256: 1}, {"b" * 257: 1}], [{"b": True}, [{"c": {"d\ne": 1}}]],
    ],
)  # fmt: skip
def test_what_a_document_cannot_hold_is_not_written(value: object) -> None:
    with pytest.raises(Malformed):
        canonical({"a": value})


@given(st.binary(max_size=40))
def test_base64_reads_back(data: bytes) -> None:
    assert unb64(b64(data)) == data
    assert unb64(b64(data), length=len(data)) == data
    with pytest.raises(Malformed, match="are needed"):
        unb64(b64(data), length=len(data) + 1)


@given(st.text("ABCDgwx089+/=-_ \n", max_size=12))
def test_base64_that_is_read_is_what_its_bytes_are_written_as(text: str) -> None:
    try:
        data = unb64(text)
    except Malformed:
        return
    assert b64(data) == text


@pytest.mark.parametrize("data", [b"\xff", b"\xff\x01", b"abc\x00", b"abcde"])
def test_of_the_last_letters_that_give_the_same_bytes_one_is_read(data: bytes) -> None:
    text = b64(data).rstrip("=")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spellings = [text[:-1] + letter + "=" * (-len(text) % 4) for letter in letters]
    same = [spelling for spelling in spellings if base64.b64decode(spelling) == data]
    assert len(same) == (16 if len(data) % 3 == 1 else 4)
    for spelling in same:
        if spelling == b64(data):
            assert unb64(spelling) == data
        else:
            with pytest.raises(Malformed, match="not canonical base64"):
                unb64(spelling)


@pytest.mark.parametrize("text", ["AA", "AA=", "AB==", "AA==\n", " AA==", "AA==AA==", "_-8=", "é", "A"])
def test_loose_base64_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="base64"):
        unb64(text)


@pytest.mark.parametrize("text", ["", "0", "0g", "AB", "0011", "００"])
def test_loose_hex_is_refused(text: str) -> None:
    assert hexbytes("0a", 1) == b"\x0a"
    with pytest.raises(Malformed, match="2 lower-case hex digits"):
        hexbytes(text, 1)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC)))
def test_times_read_back(at: datetime) -> None:
    whole = at.replace(microsecond=0)
    assert parse_time(time_text(whole)) == whole
    assert time_text(whole.astimezone(timezone(timedelta(0)))) == time_text(whole)


@pytest.mark.parametrize(
    "text",
    [
        "", "2026-11-21", "2026-11-21T04:05:06", "2026-11-21T04:05:06+00:00", "2026-11-21t04:05:06Z",
        "2026-11-21T04:05:06.0Z", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z",
        "1969-12-31T23:59:59Z", "2026-11-21T04:05:06Z\n", "２０26-11-21T04:05:06Z",
    ],
)  # fmt: skip
def test_loose_times_are_refused(text: str) -> None:
    with pytest.raises(Malformed, match="not a time"):
        parse_time(text)


def test_an_identity_is_a_sha256_in_hex() -> None:
    assert parse_identity("sha256:" + "0f" * 32)
    for text in ("0f" * 32, "sha256:" + "0F" * 32, "sha256:" + "0f" * 31, "sha512:" + "0f" * 32):
        with pytest.raises(Malformed, match="sha256"):
            parse_identity(text)


def good() -> Fields:
    return Fields(
        {
            "text": "Hello", "name": "a/b", "choice": "x", "integer": 7, "boolean": True, "time": "2026-11-21T04:05:06Z",
            "hex": "0a0b", "base64": "Cgs=", "items": [1, 2], "object": {"a": 1}, "id": "sha256:" + "00" * 32,
        },
        "thing",
    )  # fmt: skip


def test_fields_read_every_type() -> None:
    fields = good()
    assert fields.has("text")
    assert not fields.has("nothing")
    assert fields.optional("nothing", fields.text) is None
    assert fields.optional("text", fields.text) == "Hello"
    assert fields.name("name") == "a/b"
    assert fields.choice("choice", "x", "y") == "x"
    assert fields.integer("integer", 7, 7) == 7
    assert fields.boolean("boolean") is True
    assert fields.time("time") == datetime(2026, 11, 21, 4, 5, 6, tzinfo=UTC)
    assert fields.hexbytes("hex", 2) == b"\x0a\x0b"
    assert fields.base64("base64", length=2) == b"\x0a\x0b"
    assert fields.items("items", 2, 2) == (1, 2)
    assert fields.identity("id").startswith("sha256:")
    assert fields.mapping("object", 1) == {"a": 1}
    with pytest.raises(Malformed, match=r"thing\.object has the unknown member 'a'"):
        fields.fields("object").done()
    fields.done()


def test_a_member_that_nobody_read_is_refused() -> None:
    fields = good()
    fields.text("text")
    with pytest.raises(Malformed, match="unknown member 'base64'"):
        fields.done()


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda f: f.value("nothing"), "thing.nothing is missing"),
        (lambda f: f.text("integer"), "is not a string"),
        (lambda f: f.text("text", 4), "has 5 characters, 1 to 4"),
        (lambda f: f.name("text"), "is not of the characters"),
        (lambda f: f.choice("choice", "y"), "is not one of y"),
        (lambda f: f.choice("integer", "y"), "is not one of y"),
        (lambda f: f.integer("text"), "is not an integer"),
        (lambda f: f.integer("boolean"), "is not an integer"),
        (lambda f: f.integer("integer", 8), "is 7, allowed are 8 to"),
        (lambda f: f.integer("integer", 0, 6), "is 7, allowed are 0 to 6"),
        (lambda f: f.boolean("integer"), "is not true or false"),
        (lambda f: f.time("text"), "thing.text not a time"),
        (lambda f: f.hexbytes("text", 1), "has 5 characters"),
        (lambda f: f.hexbytes("hex", 3), "thing.hex not 6"),
        (lambda f: f.base64("hex", length=1), "thing.hex base64 holds 3 bytes, 1"),
        (lambda f: f.items("text", 2), "is not an array"),
        (lambda f: f.items("items", 1), "has 2 items, 0 to 1"),
        (lambda f: f.items("items", 9, 3), "has 2 items, 3 to 9"),
        (lambda f: f.identity("text"), "thing.text not sha256"),
        (lambda f: f.mapping("text", 1), "is not an object"),
        (lambda f: f.mapping("object", 0), "has 1 members, at most 0"),
        (lambda f: f.fields("text"), "thing.text is not an object"),
    ],
)
def test_a_member_of_the_wrong_kind_is_refused_by_name(read, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Malformed, match=message):
        read(good())
