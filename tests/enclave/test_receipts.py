"""Issuing receipts: a chain without gaps, a public copy without salt, also from many threads."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enclave.receipts import Answered, ReceiptBook, ResponseHash
from quotary.client.receipt import Origin, Receipt, Served, Signature, commitment, verify_signature

SECRET = Ed25519PrivateKey.generate()
KEYS = {"r": SECRET.public_key().public_bytes_raw()}


def sign(message: bytes) -> Signature:
    return Signature("r", SECRET.sign(message))


def answered(number: int) -> Answered:
    response = ResponseHash()
    assert response.update(b"an ") + response.update(b"answer") == b"an answer"
    return Answered(
        Served(f"{number:032x}", "c", "/v1/chat/completions", 1, 2, True, "stop"),
        Origin("s", "m", b"w" * 32, b"m" * 32, "sim-tdx", b"e" * 32, b"k" * 32, "log", 1, 1),
        b"question", response, (1, 2, 3), (4, 5), {"max_tokens": 1}, None,
    )  # fmt: skip


def test_receipts_form_one_chain_from_many_threads() -> None:
    book = ReceiptBook()
    with ThreadPoolExecutor(8) as pool:
        made = sorted(pool.map(lambda n: book.issue(answered(n), sign), range(100)), key=lambda r: r.sequence)
    assert [receipt.sequence for receipt in made] == list(range(100))
    assert made[0].previous is None
    assert all(after.previous == before.digest() for before, after in itertools.pairwise(made))


def test_the_clients_copy_opens_the_commitments_and_the_public_one_does_not() -> None:
    book = ReceiptBook()
    receipt = book.issue(answered(7), sign)
    assert receipt.salt is not None
    assert receipt.commitments.request == commitment("request", receipt.salt, b"question")
    assert receipt.commitments.response == commitment("response", receipt.salt, b"an answer")
    assert receipt.commitments.prompt_ids == commitment(
        "prompt_ids", receipt.salt, b"\0\0\0\1\0\0\0\2\0\0\0\3"
    )
    public = Receipt.parse(book.find(f"{7:032x}") or b"")
    assert public.salt is None
    verify_signature(public, KEYS)
    assert len(receipt.encode()) <= 2048


def test_two_equal_exchanges_have_unequal_commitments() -> None:
    book = ReceiptBook()
    first, second = (book.issue(answered(n), sign).commitments for n in (1, 2))
    assert first.request != second.request
    assert first.response != second.response


def test_a_book_keeps_the_newest_and_forgets_the_oldest() -> None:
    book = ReceiptBook(kept=2)
    for number in range(3):
        book.issue(answered(number), sign)
    assert book.find(f"{0:032x}") is None
    assert book.find(f"{2:032x}") is not None


@pytest.mark.parametrize("name", ["", "x", "0" * 31])
def test_an_unknown_receipt_is_not_found(name: str) -> None:
    assert ReceiptBook().find(name) is None
