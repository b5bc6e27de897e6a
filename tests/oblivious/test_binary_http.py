"""Binary HTTP against the examples of RFC 9292, and cut, padded and hostile messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import Malformed, Unsupported
from quotary.oblivious.binary_http import (
    END,
    MAX_FIELD,
    Reader,
    Request,
    ResponseHead,
    ResponseReader,
    chunk,
    varint,
)

# RFC 9292 section 5.1: the request of its first example, known-length; and 5.2: an answer with a trailer.
REQUEST = bytes.fromhex(
    "0003474554056874747073000a2f68656c6c6f2e747874406c0a757365722d6167656e74346375726c2f372e31362e33206c69"
    "626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e657861"
    "6d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d690000"
)
TRAILED = bytes.fromhex(
    "0140c8001d5468697320636f6e74656e7420636f6e7461696e732043524c462e0d0a0d07747261696c65720474657874"
)
FIELDS = (
    ("user-agent", "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"),
    ("host", "www.example.com"),
    ("accept-language", "en, mi"),
)
PARSED = Request("GET", "https", "", "/hello.txt", FIELDS)


def indeterminate(fields=b"\x01a\x01b", content=b"\x02hi\x03 yo", tail=b"\0\0"):
    return b"\x02\x04POST\x05https\x00\x01/" + fields + b"\0" + content + tail


def read(data, size=1):
    reader, found = ResponseReader(), b""
    for at in range(0, len(data), size):
        found += reader.feed(data[at : at + size])
    found += reader.close()
    return reader.head, found


def test_the_request_of_the_specification_is_read_and_written_again():
    assert Request.parse(REQUEST) == PARSED
    assert PARSED.encode() + b"\0" == REQUEST  # empty trailers may be left out (section 3.8)


def test_a_request_whose_empty_end_was_left_out_is_the_same_request():
    short = bytes.fromhex("00034745540568747470730b6578616d706c652e636f6d012f")
    assert Request.parse(short) == Request("GET", "https", "example.com", "/")
    assert Request.parse(short + bytes(9)) == Request.parse(short)


def test_an_indeterminate_request_is_read():
    wanted = Request("POST", "https", "", "/", (("a", "b"),), b"hi yo")
    assert Request.parse(indeterminate()) == wanted
    assert Request.parse(indeterminate(tail=b"\0\0\0\0")) == wanted


@pytest.mark.parametrize("data", [TRAILED, b"\x03" + TRAILED[1:34] + b"\0" + TRAILED[35:] + b"\0"])
def test_trailers_are_refused_and_not_dropped(data):
    with pytest.raises(Unsupported, match="trailers"):
        read(data, len(data))


def test_a_request_with_trailers_is_refused():
    with pytest.raises(Unsupported, match="trailers"):
        Request.parse(indeterminate(tail=b"\0\x01a\x01b\0"))


def test_an_informational_answer_is_refused():
    with pytest.raises(Unsupported, match="informational"):
        read(b"\x03\x40\x66\0\x40\xc8\0\0\0")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_is_read_however_it_is_cut(size):
    head = ResponseHead(201, (("content-type", "text/plain"),))
    assert read(head.encode() + chunk(b"some") + chunk(b"") + chunk(b" words") + END, size) == (
        head,
        b"some words",
    )
    assert read(b"\x01\x40\xc8\x04\x01a\x01b\x02hi", size) == (ResponseHead(200, (("a", "b"),)), b"hi")


def test_an_answer_that_ends_early_is_refused_wherever_it_was_cut():
    data = ResponseHead(200, (("a", "b"),)).encode() + chunk(b"some words") + END
    for end in range(len(data)):
        with pytest.raises(Malformed):
            read(data[:end])


@pytest.mark.parametrize("status", [0, 99, 600, 700])
def test_an_answer_without_a_final_status_is_refused(status):
    with pytest.raises(Malformed, match="status"):
        read(b"\x03" + varint(status) + b"\0\0\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x40\xc8",
        b"\x04" + REQUEST[1:],
        REQUEST[:40],
        REQUEST + b"x",
        REQUEST + b"\0\0x",
        b"\x00\x00" + REQUEST[5:],
        REQUEST.replace(b"GET", b"G T"),
        REQUEST.replace(b"/hello", b"/he\nlo"),
        REQUEST.replace(b"user-agent", b"User-Agent"),
        REQUEST.replace(b"host", b"ho:t"),
        REQUEST.replace(b"en, mi", b"en\r\nmi"),
        REQUEST.replace(b"en, mi", b" en,mi"),
        indeterminate(fields=b"\x01a\x01b" * 65),
        indeterminate(content=b"\x09hi"),
        indeterminate(tail=b"\0\0x"),
        b"\0\xff" + b"\xff" * 7,
    ],
)
def test_what_is_no_request_is_refused(data):
    with pytest.raises(Malformed):
        Request.parse(data)


def test_a_field_longer_than_allowed_is_refused():
    fits = Request("GET", "https", "", "/", (("a", "b" * MAX_FIELD),))
    assert Request.parse(fits.encode()) == fits
    with pytest.raises(Malformed, match="field"):
        Request.parse(Request("GET", "https", "", "/", (("a", "b" * (MAX_FIELD + 1)),)).encode())


def test_an_answer_whose_fields_never_end_is_refused():
    with pytest.raises(Malformed, match="fields"):
        read(b"\x03\x40\xc8\x01a" + varint(1 << 20) + b"b" * 40_000, 1000)


@pytest.mark.parametrize(
    ("value", "data"),
    [(37, "25"), (15293, "7bbd"), (494878333, "9d7f3e7d"), (151288809941952652, "c2197c5eff14e88c")],
)
def test_integers_are_those_of_rfc_9000(value, data):
    assert varint(value).hex() == data
    assert Reader(bytes.fromhex(data)).varint() == value
    assert Reader(bytes.fromhex("4025")).varint() == 37


def test_an_integer_of_more_than_62_bits_is_not_written():
    with pytest.raises(ValueError, match="62 bits"):
        varint(1 << 62)


@given(st.binary(max_size=200))
def test_bytes_are_a_request_or_an_error_of_ours(data):
    try:
        found = Request.parse(data)
    except (Malformed, Unsupported):
        return
    assert Request.parse(found.encode()) == found


@given(st.binary(max_size=200), st.integers(1, 50))
def test_bytes_are_an_answer_or_an_error_of_ours(data, size):
    try:
        read(data, size)
    except (Malformed, Unsupported):
        return
