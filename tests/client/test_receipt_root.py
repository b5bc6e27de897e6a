"""By when a receipt was there: under a root, in a statement, in a log; and what is refused on the way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from enclave.roots import MINUTE, MOST, ReceiptRoots
from quotary import Client
from quotary.client.policy import Policy
from quotary.client.receipt import Receipt
from quotary.client.receipt_root import (
    KIND,
    ReceiptPlace,
    ReceiptRoot,
    encode_roots,
    parse_roots,
    verify_logged,
    verify_place,
)
from quotary.errors import InvalidProof, Malformed, Rejected
from tests.cli.conftest import Live, Run, live, run  # noqa: F401  # fixtures
from tests.client.test_receipt import made
from tests.fakes.authority import ORIGIN, SERVICE, Authority
from tests.fakes.enclave import FakeEnclave, over_http

NOW = 1_795_000_000


def receipts(count: int, first: int = 3) -> list[Receipt]:
    return [replace(made(), sequence=first + number) for number in range(count)]


def public(receipt: Receipt) -> bytes:
    return replace(receipt, salt=None).encode()


def rooted(found: list[Receipt], now: int = NOW) -> ReceiptRoots:
    roots = ReceiptRoots()
    for receipt in found:
        roots.add(receipt.sequence, public(receipt), now)
    return roots


def placed(receipt: Receipt, roots: ReceiptRoots) -> ReceiptPlace:
    place = roots.place(receipt.sequence, NOW + MINUTE)
    assert place is not None
    return place


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_receipt_has_its_place_under_the_root(count: int) -> None:
    found = receipts(count)
    roots = rooted(found)
    for receipt in found:
        place = ReceiptPlace.parse(placed(receipt, roots).encode())
        verify_place(receipt, place)
        verify_place(replace(receipt, salt=None), place)
    (root,) = roots.closed(NOW + MINUTE)
    assert (root.first, root.size) == (3, count)
    assert parse_roots(encode_roots([root])) == (root,)


def test_a_root_is_closed_after_a_minute_or_when_it_is_full() -> None:
    (receipt,) = receipts(1)
    roots = rooted([receipt])
    assert roots.closed(NOW + MINUTE - 1) == ()
    assert roots.place(3, NOW + MINUTE - 1) is None
    roots.add(4, b"the next minute's", NOW + MINUTE)
    assert [(root.first, root.size) for root in roots.closed(NOW + MINUTE)] == [(3, 1)]
    full = ReceiptRoots()
    for sequence in range(MOST + 1):
        full.add(sequence, b"receipt", NOW)
    assert [(root.first, root.size) for root in full.closed(NOW)] == [(0, MOST)]
    assert full.place(MOST, NOW) is None


def test_another_receipt_place_or_root_is_refused() -> None:
    found = receipts(5)
    roots = rooted(found)
    place = placed(found[1], roots)
    for wrong in (
        replace(place, path=place.path[:-1]),
        replace(place, path=(bytes(32), *place.path[1:])),
        replace(place, root=replace(place.root, root=bytes(32))),
        replace(place, root=replace(place.root, size=9)),
    ):
        with pytest.raises(InvalidProof):
            verify_place(found[1], wrong)
    with pytest.raises(Rejected, match="index"):
        verify_place(found[2], place)
    with pytest.raises(InvalidProof):
        verify_place(replace(found[1], signatures=found[1].signatures * 2), place)


def test_a_statement_of_the_service_names_the_root() -> None:
    roots, maker = rooted(receipts(2)), Authority()
    maker.genesis()
    place = placed(receipts(1)[0], roots)
    named = maker.notice(
        KIND, items=[{"name": "receipts/9", "sha256": "00" * 32, "size": 1}, place.root.item]
    )
    verify_logged(place, named, SERVICE)
    with pytest.raises(Rejected, match="a statement of"):
        verify_logged(place, named, "other")
    with pytest.raises(Rejected, match="another entry"):
        verify_logged(place, maker.notice("artefact", items=[place.root.item]), SERVICE)
    with pytest.raises(Rejected, match="another entry"):
        verify_logged(place, b"{}", SERVICE)
    for change in ({"sha256": "00" * 32}, {"name": "receipts/4"}, {"size": 3}):
        with pytest.raises(Rejected, match="other roots"):
            verify_logged(place, maker.notice(KIND, items=[place.root.item | change]), SERVICE)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"roots":[{}],"v":1}', b'{"roots":[],"v":2}', b'{"roots":{},"v":1}']
)
def test_what_is_no_answer_about_roots_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_roots(data)
    with pytest.raises(Malformed):
        ReceiptPlace.parse(data)


def answered(live: Live) -> tuple[Path, Receipt]:  # noqa: F811
    client = Client(
        "http://127.0.0.1:1",
        Policy.parse(live.policy.read_bytes()),
        log_url="http://x",
        transport=FakeEnclave(live.world),
    )
    file = client.chat("x").file
    assert file.receipt is not None
    return live.file("answer.json", file.encode()), Receipt.parse(file.receipt)


def test_a_receipt_is_verified_up_to_the_log_offline(run: Run, live: Live) -> None:  # noqa: F811
    evidence, receipt = answered(live)
    roots = rooted([receipt])
    place = placed(receipt, roots)
    log = live.world.log
    entry = log.maker.notice(KIND, items=[root.item for root in roots.closed(NOW + MINUTE)])
    log.append(entry)
    log.close(live.world.ts)
    index = log.entries.index(entry)
    files = {
        "--place": live.file("place.json", place.encode()),
        "--entry": live.file("roots.entry", entry),
        "--proof": live.file("roots.proof", log.proof(index, live.world.ts)),
    }
    words = ["receipt", "verify", evidence, "--policy", live.policy, "--simulation"]
    ran = run(*words, *(word for pair in files.items() for word in pair), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["logged_index"] == index
    assert said["logged_before"].endswith("Z")
    assert run(*words, "--place", files["--place"]).code == 2
    files["--place"].write_bytes(replace(place, root=replace(place.root, root=bytes(32))).encode())
    ran = run(*words, *(word for pair in files.items() for word in pair))
    assert ran.code == 10


def test_roots_of_a_running_enclave_become_a_statement(run: Run, live: Live, tmp_path: Path) -> None:  # noqa: F811
    enclave, out = FakeEnclave(live.world), tmp_path / "roots.json"
    words = ["--service", SERVICE, "--origin", ORIGIN, "--sequence", "1", "--out", out]
    with over_http(enclave) as url:
        assert run("receipt", "roots", url, *words).code == 40
        enclave.roots = encode_roots([])
        assert run("receipt", "roots", url, *words).code == 40
        enclave.roots = encode_roots([ReceiptRoot(0, 2, bytes(32)), ReceiptRoot(2, 5, b"\x01" * 32)])
        ran = run("receipt", "roots", url, *words)
    assert ran.code == 0, ran.err
    assert "receipts 0 to 6" in ran.out
    predicate = json.loads(out.read_text())["predicate"]
    assert [item["name"] for item in predicate["items"]] == ["receipts/0", "receipts/2"]
