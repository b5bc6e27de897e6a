"""Requests that no honest client sends, byte for byte: framing lies, smuggling, sizes, pipelines and bombs.

Each case says which statuses its *first* answer may have. Nothing may follow that answer unless ``answers``
allows it: whoever answers ``TAIL`` where it stands inside a request has read two requests where the other
side saw one.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

CANARY = b"smuggled-canary"
TAIL = b"GET /api/v1/search?q=" + CANARY + b" HTTP/1.1\r\nHost: log.example.org\r\n\r\n"
HOST = b"Host: log.example.org\r\n"
POST = b"POST /api/v1/entries HTTP/1.1\r\n" + HOST
BATCH = b"POST /api/v1/batches HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
MAX_ENTRY = 65_535

REFUSED = frozenset({400})
UNKNOWN_CODING = frozenset({400, 501})
TOO_LARGE = frozenset({413})
LONG_HEAD = frozenset({400, 414, 431})
# No answer: the server closes without one, or waits for the rest of a request, and has not been deceived.
NOTHING = 0
WAITS = frozenset({NOTHING})


@dataclass(frozen=True, slots=True)
class Case:
    """One connection's bytes.

    statuses: what the first answer may be, or ``NOTHING``
    answers:  how many answers may come at most
    """

    name: str
    sent: bytes
    statuses: frozenset[int]
    answers: int = 1


def cases() -> list[Case]:
    """Give every case; the names are unique."""
    found = [
        *_both_lengths(),
        *_lengths(),
        *_names(),
        *_chunks(),
        *_heads(),
        *_lines(),
        *_pipelines(),
        *_bodies(),
        *_bombs(),
    ]
    assert len({case.name for case in found}) == len(found)
    return found


CODINGS = (
    b"chunked",
    b" chunked",
    b"\tchunked",
    b"chunked ",
    b"CHUNKED",
    b"xchunked",
    b"chunk",
    b"chunked, identity",
    b"identity, chunked",
    b"chunked, chunked",
    b"gzip, chunked",
    b"chunked;q=1",
    b'"chunked"',
    b"\x0bchunked",
    b"chunked\x00",
    b"chunked,",
    b",chunked",
    b"identity",
    b"",
    b"chunked\xa0",
)


def _both_lengths() -> Iterator[Case]:
    """A length and a transfer coding: RFC 9112 section 6.1 lets us refuse, so both must."""
    body = b"0\r\n\r\n" + TAIL
    for coding in CODINGS:
        for length in (0, 5, len(body)):
            head = POST + b"Content-Length: %d\r\n" % length
            sent = head + b"Transfer-Encoding:" + coding + b"\r\n\r\n" + body
            yield Case(f"length {length} and coding {coding!r}", sent, UNKNOWN_CODING)
    for coding in CODINGS[5:]:
        sent = POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + body
        yield Case(f"coding {coding!r} alone", sent, UNKNOWN_CODING | {411}, 2)
    twice = POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + body
    yield Case("two codings, chunked first", twice, UNKNOWN_CODING)
    folded = POST + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n" + body
    yield Case("a folded coding", folded, REFUSED)


def _lengths() -> Iterator[Case]:
    values = (
        b"+4", b"-4", b"-1", b"4 4", b"4,4", b"4, 5", b"0x4", b"4.0", b"4e0", b"", b" ", b"four", b"4;", b"4\x00",
        b"\xd9\xa4", b"9" * 19, b"9" * 40, b"18446744073709551620", b"4_0", b"\x0b4", b"4\xa0",
    )  # fmt: skip
    for value in values:
        sent = POST + b"Content-Length: " + value + b"\r\n\r\n{}{}" + TAIL
        yield Case(f"length {value!r}", sent, REFUSED | TOO_LARGE)
    for first, second in ((b"4", b"5"), (b"5", b"4"), (b"4", b"4"), (b"0", b"4")):
        sent = POST + b"Content-Length: %s\r\nContent-Length: %s\r\n\r\n{}{}" % (first, second) + TAIL
        yield Case(f"lengths {first!r} and {second!r}", sent, REFUSED)


def _names() -> Iterator[Case]:
    """Header lines that two readers take for different headers."""
    length = b"Content-Length: 4\r\n"
    lines = {
        "space before the colon": b"Content-Length : 4\r\n",
        "tab before the colon": b"Content-Length\t: 4\r\n",
        "space in a name": b"Content Length: 4\r\n",
        "NUL in a name": b"Content-Length\x00: 4\r\n",
        "no colon": b"Content-Length 4\r\n",
        "empty name": b": 4\r\n",
        "leading space": b" Content-Length: 4\r\n",
        "folded": length + b"X-A: 1\r\n 2\r\n",
        "NUL in a value": length + b"X-A: a\x00b\r\n",
        "carriage return in a value": length + b"X-A: a\rTransfer-Encoding: chunked\r\n",
        "control in a name": length + b"X\x01A: 1\r\n",
        "quote in a name": length + b'"X-A": 1\r\n',
        "not ASCII in a name": length + b"X-\xc3\xa9: 1\r\n",
    }
    for name, line in lines.items():
        for ending in (b"{}{}", b"{}{}" + TAIL):
            yield Case(f"{name}, {len(ending)} bytes", POST + line + b"\r\n" + ending, REFUSED | {411}, 2)
    underscored = POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    yield Case("an underscore for the hyphen", underscored, REFUSED)


def _chunks() -> Iterator[Case]:
    heads = (
        b"-1", b"+2", b"0x2", b" 2", b"g", b"", b"2\x00", b"\xb2", b"2_0", b"0" * 20 + b"2g", b"2\r",
    )  # fmt: skip
    for head in heads:
        sent = POST + CHUNKED + b"\r\n" + head + b"\r\n{}\r\n0\r\n\r\n" + TAIL
        yield Case(f"chunk head {head!r}", sent, REFUSED)
    # The front reads these as two bytes, says so to the registry by a length, and answers what follows.
    for head in (b"2 2", b"2\n", b"2;a\n"):
        sent = POST + CHUNKED + b"\r\n" + head + b"\r\n{}\r\n0\r\n\r\n" + TAIL
        yield Case(f"loose chunk head {head!r}", sent, REFUSED, 2)
    for head in (b"FFFFFFFFFFFFFFFFF", b"7fffffffffffffff", b"ffffffffffffffff"):
        sent = POST + CHUNKED + b"\r\n" + head + b"\r\n{}\r\n0\r\n\r\n" + TAIL
        yield Case(f"huge chunk {head!r}", sent, REFUSED | TOO_LARGE | WAITS)
    yield Case("a chunk longer than said", POST + CHUNKED + b"\r\n2\r\n{}XX\r\n0\r\n\r\n" + TAIL, REFUSED)
    yield Case("line feeds alone", POST + CHUNKED + b"\r\n2\n{}\n0\n\n", REFUSED | WAITS)
    huge = b"2;" + b"a" * 70_000
    yield Case(
        "a huge chunk extension",
        POST + CHUNKED + b"\r\n" + huge + b"\r\n{}\r\n0\r\n\r\n",
        REFUSED | TOO_LARGE | LONG_HEAD,
    )
    trailer = b"0\r\nContent-Length: 9\r\nHost: evil\r\n\r\n"
    yield Case("a length in the trailer", POST + CHUNKED + b"\r\n2\r\n{}\r\n" + trailer, REFUSED)
    long = b"0\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(100)) + b"\r\n"
    yield Case("100 kB of trailers", POST + CHUNKED + b"\r\n2\r\n{}\r\n" + long, REFUSED | LONG_HEAD)
    tiny = b"1\r\n{\r\n" * (MAX_ENTRY + 2) + b"0\r\n\r\n"
    yield Case("one byte a chunk, one too many", POST + CHUNKED + b"\r\n" + tiny, TOO_LARGE)
    one = b"%x\r\n" % (MAX_ENTRY + 1) + b" " * (MAX_ENTRY + 1) + b"\r\n0\r\n\r\n"
    yield Case("one chunk, one byte too many", POST + CHUNKED + b"\r\n" + one, TOO_LARGE)
    yield Case("a chunk that never ends", POST + CHUNKED + b"\r\nffff\r\n{", WAITS)
    yield Case("chunks without the last", POST + CHUNKED + b"\r\n2\r\n{}\r\n", WAITS)
    old = b"POST /api/v1/entries HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n" + TAIL
    yield Case("chunks in HTTP/1.0", old, UNKNOWN_CODING | {411})


def _heads() -> Iterator[Case]:
    get = b"GET /checkpoint HTTP/1.1\r\n" + HOST
    for count in (65, 200, 2000):
        lines = b"".join(b"X-%d: 1\r\n" % number for number in range(count))
        # The front hands over what fits into its buffers; the registry itself takes 64 headers.
        yield Case(f"{count} headers", get + lines + b"\r\n", LONG_HEAD | {200}, 1)
    for length in (9_000, 70_000, 1_000_000):
        # Whoever still sends when the connection is reset may not see the answer that came before.
        statuses = LONG_HEAD if length < 10_000 else LONG_HEAD | WAITS
        yield Case(f"a header of {length} bytes", get + b"X-A: " + b"a" * length + b"\r\n\r\n", statuses)
        line = b"GET /checkpoint?" + b"a" * length + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        yield Case(f"a target of {length} bytes", line, statuses)
        yield Case(f"a name of {length} bytes", get + b"X" * length + b": 1\r\n\r\n", statuses)
    for value in (b"evil.example.org/../", b"a b", b"[::1", b"a\x00b", b"x" * 3000, b"a,b", b"a@b"):
        sent = b"GET /checkpoint HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"
        yield Case(f"host {value[:20]!r}", sent, LONG_HEAD | {200}, 1)
    yield Case("no host", b"GET /checkpoint HTTP/1.1\r\n\r\n", REFUSED | {200})
    yield Case("two hosts", b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"Host: evil\r\n\r\n", REFUSED | {200})
    expect = POST + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n"
    yield Case("expect with too much to come", expect, TOO_LARGE | {417, NOTHING})
    strange = POST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}"
    yield Case("an expectation of another kind", strange, REFUSED | {417})
    h2c = (
        POST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    )
    yield Case("an upgrade to h2c", h2c + b"Content-Length: 2\r\n\r\n{}", REFUSED)
    socket = (
        b"GET /api/v1/entries HTTP/1.1\r\n"
        + HOST
        + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        + TAIL
    )
    yield Case("an upgrade to a socket", socket, frozenset({405}), 2)
    yield Case("a head that never ends", get + b"X-A: ", WAITS)


def _lines() -> Iterator[Case]:
    lines = {
        "HTTP/0.9": b"GET /checkpoint\r\n",
        "no version": b"GET /checkpoint \r\n" + HOST,
        "HTTP/2.0": b"GET /checkpoint HTTP/2.0\r\n" + HOST,
        "HTTP/9.9": b"GET /checkpoint HTTP/9.9\r\n" + HOST,
        "HTTP/1.1x": b"GET /checkpoint HTTP/1.1x\r\n" + HOST,
        "HTTP/01.1": b"GET /checkpoint HTTP/01.1\r\n" + HOST,
        "http/1.1": b"GET /checkpoint http/1.1\r\n" + HOST,
        "ICY/1.1": b"GET /checkpoint ICY/1.1\r\n" + HOST,
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        "a tab for the space": b"GET\t/checkpoint\tHTTP/1.1\r\n" + HOST,
        "a path with a space": b"GET /check point HTTP/1.1\r\n" + HOST,
        "a path with NUL": b"GET /check\x00point HTTP/1.1\r\n" + HOST,
        "a target without a slash": b"GET checkpoint HTTP/1.1\r\n" + HOST,
        "a line of controls": b"\x01\x02\x03\x04 / HTTP/1.1\r\n" + HOST,
        "a method in lower case": b"get /checkpoint HTTP/1.1\r\n" + HOST,
        "a method with a colon": b"GET: /checkpoint HTTP/1.1\r\n" + HOST,
        "another method": b"DEBUG /checkpoint HTTP/1.1\r\n" + HOST,
        "trace": b"TRACE /checkpoint HTTP/1.1\r\n" + HOST,
        "connect": b"CONNECT evil.example.org:443 HTTP/1.1\r\n" + HOST,
        "options of everything": b"OPTIONS * HTTP/1.1\r\n" + HOST,
        "a TLS hello": bytes.fromhex("16030100a5010000a10303") + bytes(60),
    }
    statuses = frozenset({400, 404, 405, 501, 505, NOTHING})
    for name, line in lines.items():
        yield Case(f"line: {name}", line + b"\r\n" + TAIL, statuses, 2 if b"HTTP/1.1\r\n" in line else 1)
    absolute = b"GET http://evil.example.org/api/v1/search?q=x HTTP/1.1\r\n" + HOST + b"\r\n"
    yield Case("an absolute target", absolute, frozenset({200, 400}))


def _pipelines() -> Iterator[Case]:
    """Honest framing, several requests at once: as many answers, in order, or a closed connection."""
    good = b"GET /api/v1/search?q=first HTTP/1.1\r\n" + HOST + b"\r\n"
    bad = POST + b"Content-Length: 2\r\n\r\n{}"
    large = POST + b"Content-Length: %d\r\n\r\n" % (MAX_ENTRY + 1) + b" " * (MAX_ENTRY + 1)
    for count in (2, 10, 50):
        yield Case(f"{count} good ones", good * count, frozenset({200}), count)
        yield Case(f"{count} bad ones", bad * count, REFUSED, count)
    yield Case("a good one and garbage", good + b"\x00\x01\x02\r\n\r\n", frozenset({200}), 2)
    yield Case("a large one and a good one", large + good, TOO_LARGE, 2)
    with_body = b"GET /api/v1/search?q=first HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(TAIL)
    yield Case("a GET whose body is a request", with_body + TAIL, frozenset({200, 400}))
    closing = POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}" + TAIL
    yield Case("a request behind the last one", closing, REFUSED)
    head = b"HEAD /api/v1/search?q=first HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(TAIL)
    yield Case("a HEAD whose body is a request", head + TAIL, frozenset({200, 400}))


def _bodies() -> Iterator[Case]:
    for path in (b"entries", b"batches"):
        limit = MAX_ENTRY if path == b"entries" else 8 << 20
        start = b"POST /api/v1/" + path + b" HTTP/1.1\r\n" + HOST
        for length in (limit + 1, 10**9, 10**15):
            yield Case(
                f"{path.decode()}: {length} bytes announced",
                start + b"Content-Length: %d\r\n\r\n" % length,
                TOO_LARGE | WAITS,
            )
        yield Case(f"{path.decode()}: half a body", start + b"Content-Length: 1000\r\n\r\n{", WAITS)
        yield Case(f"{path.decode()}: no length", start + b"\r\n", frozenset({200, 400, 411}))
    much = b" " * (MAX_ENTRY + 1)
    yield Case("one byte too many, sent", POST + b"Content-Length: %d\r\n\r\n" % len(much) + much, TOO_LARGE)


def _bombs() -> Iterator[Case]:
    plain = b'{"payload":"' + b"A" * 10_000_000 + b'"}'
    codings = {"gzip": gzip.compress(plain), "deflate": zlib.compress(plain), "br": gzip.compress(plain)}
    for name, packed in codings.items():
        head = POST + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(packed))
        yield Case(f"10 MB of {name}", head + packed, REFUSED | {415})
        chunked = POST + b"Transfer-Encoding: %s, chunked\r\n\r\n" % name.encode()
        sent = chunked + b"%x\r\n" % len(packed) + packed + b"\r\n0\r\n\r\n"
        yield Case(f"10 MB of {name} as a transfer coding", sent, UNKNOWN_CODING)
    nested = gzip.compress(gzip.compress(plain))
    head = POST + b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(nested)
    yield Case("10 MB of gzip in gzip", head + nested, REFUSED | {415})
    deep = {"arrays": b"[" * MAX_ENTRY, "objects": b'{"a":' * 13_000, "strings": b'"\\u0000' * 9_000}
    wide = b"{" + b",".join(b'"k%d":1' % number for number in range(6_000)) + b"}"
    number = b'{"a":' + b"9" * 60_000 + b"}"
    for name, body in {
        **deep,
        "members": wide,
        "one number": number,
        "floats": b"[" + b"1e999," * 10_000,
    }.items():
        yield Case(f"a tower of {name}", POST + b"Content-Length: %d\r\n\r\n" % len(body) + body, REFUSED)
    lines = {
        "10,001 lines": b"{}\n" * 10_001,
        "one line of 1 MB": b"[" * (1 << 20),
        "empty lines": b"\n" * 10_001,
    }
    for name, body in lines.items():
        found = BATCH + b"Content-Length: %d\r\n\r\n" % len(body) + body
        yield Case(f"batch: {name}", found, frozenset({200, 413}))
