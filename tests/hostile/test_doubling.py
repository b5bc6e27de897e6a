"""Row I11 and bar A43: twice the input takes at most two and a half times as long, for every reader and route."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quotary.attestation import cbor
from quotary.canonical import canonical, parse_canonical
from quotary.errors import QuotaryError
from quotary.statements.envelope import Envelope
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.proof import TlogProof
from quotary.tlog.tiles import decode_entry_bundle, parse_tile_path
from quotary.tlog.witness import AddCheckpoint
from tests.fakes.inprocess import Local, local

MOST = 2.5
ATTEMPTS = 6
# Far below this the clock measures itself.
LEAST_SECONDS = 0.002
LIMIT = 1 << 26
MOST_BYTES = 200_000

Act = Callable[[bytes], object]
INPUTS: dict[str, tuple[Act, Callable[[int], bytes]]] = {
    "a string": (lambda data: parse_canonical(data, LIMIT), lambda n: b'"' + b"a" * (64 * n) + b'"'),
    "escapes": (lambda data: parse_canonical(data, LIMIT), lambda n: b'"' + b"\\u0041" * n + b'"'),
    "members": (
        lambda data: parse_canonical(data, LIMIT),
        lambda n: canonical({f"k{i:07d}": i for i in range(n)}),
    ),
    "one name again": (
        lambda data: parse_canonical(data, LIMIT),
        lambda n: b"{" + b",".join([b'"a":1'] * n) + b"}",
    ),
    "items": (lambda data: parse_canonical(data, LIMIT), lambda n: canonical(list(range(n)))),
    "digits": (lambda data: parse_canonical(data, LIMIT), lambda n: b"1" * n),
    "brackets": (lambda data: parse_canonical(data, LIMIT), lambda n: b"[" * n),
    "an entry of rubbish": (Envelope.parse, lambda n: b'{"payload":"' + b"A" * n),
    "a note's text": (Note.parse, lambda n: b"a\n\n" * n),
    "a note's line": (Note.parse, lambda n: b"a\n\n\xe2\x80\x94 a " + b"A" * n + b"\n"),
    "a note's spaces": (Note.parse, lambda n: b"a\n\n\xe2\x80\x94" + b" " * n + b"\n"),
    "a policy's words": (lambda data: TlogPolicy.parse(data.decode()), lambda n: b"group a 1 " + b"b " * n),
    "a policy's spaces": (lambda data: TlogPolicy.parse(data.decode()), lambda n: b" \t" * n + b"x"),
    "a policy's lines": (lambda data: TlogPolicy.parse(data.decode()), lambda n: b"# \n" * n),
    "a proof's lines": (TlogProof.parse, lambda n: b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"a\n" * n),
    "an index": (TlogProof.parse, lambda n: b"c2sp.org/tlog-proof@v1\nindex " + b"9" * n + b"\n\n"),
    "a submission's hashes": (AddCheckpoint.parse, lambda n: b"old 0\n" + b"A\n" * n + b"\n"),
    "a submission's size": (AddCheckpoint.parse, lambda n: b"old " + b"9" * n + b"\n\n"),
    "a bundle of empty entries": (decode_entry_bundle, lambda n: b"\0\0" * n),
    "a tile's path": (
        lambda data: parse_tile_path(data.decode()),
        lambda n: b"tile/0/" + b"x000/" * n + b"000",
    ),
    "CBOR items": (lambda data: cbor.decode(data, LIMIT), lambda n: b"\x9a" + n.to_bytes(4) + b"\0" * n),
    "CBOR arrays": (lambda data: cbor.decode(data, LIMIT), lambda n: b"\x81" * n + b"\0"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a43_twice_the_bytes_take_no_reader_more_than_twice_as_long(name: str) -> None:
    act, make = INPUTS[name]

    def run(data: bytes) -> None:
        try:
            act(data)
        except QuotaryError:
            return

    assert grows(run, make) <= MOST


ROUTES = {
    "search": "/api/v1/search?q={}",
    "proof": "/api/v1/proofs/{}",
    "entry": "/api/v1/entries/{}",
    "hash": "/api/v1/entries/by-hash/{}",
    "tile": "/tile/0/{}",
    "service": "/api/v1/services/{}",
    "bundle": "/api/v1/bundles/{}/x",
    "consistency": "/api/v1/consistency?old={}&new={}",
    "problem": "/problems/{}",
    "nothing": "/{}",
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(Path(tmp_path_factory.mktemp("doubling"))) as found:
        found.loop.round()
        yield found


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("piece", ["a", "9", "../"])
def test_a43_twice_the_address_takes_no_route_more_than_twice_as_long(
    log: Local, route: str, piece: str
) -> None:
    client, path = log.client(), ROUTES[route]

    def run(data: bytes) -> None:
        assert client.get(path.replace("{}", data.decode())).status_code in (200, 308, 400, 404)

    assert grows(run, lambda n: piece.encode() * n, start=500) <= MOST


@pytest.mark.parametrize("line", [b"{}", b"[[[[", b'{"payload":"', b"\xff"])
def test_a43_twice_the_lines_take_a_batch_no_more_than_twice_as_long(log: Local, line: bytes) -> None:
    client = log.client()

    def run(data: bytes) -> None:
        assert client.post("/api/v1/batches", data=data).status_code in (200, 413, 429)

    assert grows(run, lambda n: (line + b"\n") * n, start=100) <= MOST


def grows(run: Callable[[bytes], None], make: Callable[[int], bytes], start: int = 2000) -> float:
    """How much longer twice as much takes, in processor time: the least of several attempts."""
    n = start
    small = make(n)
    while seconds(run, small) < LEAST_SECONDS and len(small) < MOST_BYTES:
        n *= 2
        small = make(n)
    large, ratio = make(4 * n), float("inf")
    for _ in range(ATTEMPTS):
        took = seconds(run, large)
        # Four times as much, so that caches and the collector weigh less. What takes no time has not grown.
        ratio = min(ratio, math.sqrt(took / seconds(run, small)) if took > LEAST_SECONDS else 1.0)
        if ratio <= MOST:
            break
    return ratio


def seconds(run: Callable[[bytes], None], data: bytes) -> float:
    """The best of three."""
    found = []
    for _ in range(3):
        started = time.process_time()
        run(data)
        found.append(time.process_time() - started)
    return max(min(found), 1e-6)
