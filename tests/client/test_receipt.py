"""Receipts: the document, its signature, and every statement in it held against what the client saw."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.canonical import canonical, parse_canonical
from quotary.client.receipt import (
    MAX_RECEIPT,
    Channel,
    Commitments,
    Exchange,
    Origin,
    Receipt,
    Served,
    Signature,
    commitment,
    verify_exchange,
    verify_origin,
    verify_signature,
)
from quotary.errors import InvalidSignature, Malformed, QuotaryError, Refused, Rejected

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {"receipt-1": SECRET.public_key().public_bytes_raw()}
SALT = bytes(32)
EXCHANGE = Exchange(b"w" * 32, b"question", b"answer", (b"0" * 32, b"1" * 32, b"2" * 32), 41)


def sign(receipt: Receipt) -> Receipt:
    return replace(receipt, signatures=(Signature("receipt-1", SECRET.sign(receipt.signed_bytes())),))


def made() -> Receipt:
    return sign(
        Receipt(
            sequence=3,
            served=Served(
                "ab" * 16, "chatcmpl-1", "/v1/chat/completions", 1_795_000_000, 1_795_000_001, True, "stop"
            ),
            commitments=Commitments(
                commitment("request", SALT, b"question"),
                commitment("response", SALT, b"answer"),
                bytes(32),
                bytes(32),
                5,
                2,
            ),
            origin=Origin(
                "chat",
                "tiny",
                b"W" * 32,
                b"M" * 32,
                "sim-tdx",
                b"E" * 32,
                b"K" * 32,
                "log.example/simulation",
                42,
                43,
            ),
            parameters={"dtype": "float32", "max_tokens": 16, "temperature_ppm": 0},
            channel=Channel(b"w" * 32, 2, b"2" * 32),
            previous=b"P" * 32,
            salt=SALT,
        )
    )


def test_a_receipt_survives_its_text_form() -> None:
    for receipt in (made(), replace(made(), channel=None, previous=None, salt=None)):
        assert Receipt.parse(receipt.encode()) == receipt


def test_a_genuine_receipt_of_this_exchange_is_accepted() -> None:
    receipt = Receipt.parse(made().encode())
    verify_signature(receipt, KEYS)
    verify_origin(receipt, service="chat", measurement=b"M" * 32, keyset=b"K" * 32, weights=b"W" * 32)
    verify_exchange(receipt, EXCHANGE)


def test_a_receipt_is_small() -> None:
    assert len(made().encode()) <= 2048


def test_the_salt_is_neither_signed_nor_in_the_public_copy() -> None:
    public = replace(made(), salt=None)
    verify_signature(Receipt.parse(public.encode()), KEYS)
    assert b"commit_salt" not in public.encode()
    assert made().digest() == public.digest()


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in leaves(item, (*path, name))]
    if isinstance(value, list):
        return [leaf for number, item in enumerate(value) for leaf in leaves(item, (*path, number))]
    return [path]


def other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    assert isinstance(value, str)
    return value[:-1] + ("0" if value[-1] != "0" else "1")


def test_no_member_can_be_changed_without_breaking_the_signature() -> None:
    document = parse_canonical(replace(made(), salt=None).encode(), MAX_RECEIPT)
    for path in leaves(document):
        changed = parse_canonical(canonical(document), MAX_RECEIPT)
        place = changed
        for name in path[:-1]:
            place = place[name]  # type: ignore[index]
        place[path[-1]] = other(place[path[-1]])  # type: ignore[index]
        with pytest.raises((InvalidSignature, Malformed)):
            verify_signature(Receipt.parse(canonical(changed)), KEYS)


def test_no_member_can_be_left_out_or_added_quietly() -> None:
    document = parse_canonical(replace(made(), salt=None).encode(), MAX_RECEIPT)
    assert isinstance(document, dict)
    for name in document:
        with pytest.raises((InvalidSignature, Malformed)):
            verify_signature(Receipt.parse(canonical({k: v for k, v in document.items() if k != name})), KEYS)
    with pytest.raises(Malformed, match="unknown member"):
        Receipt.parse(canonical(document | {"extra": 1}))


def test_a_truncated_receipt_is_malformed() -> None:
    data = made().encode()
    for length in range(len(data)):
        with pytest.raises(Malformed):
            Receipt.parse(data[:length])


def test_a_key_outside_the_keyset_is_refused() -> None:
    for keys in (
        {},
        {"receipt-2": KEYS["receipt-1"]},
        {"receipt-1": Ed25519PrivateKey.generate().public_key().public_bytes_raw()},
    ):
        with pytest.raises(InvalidSignature):
            verify_signature(made(), keys)


def test_a_receipt_without_signature_proves_nothing() -> None:
    with pytest.raises(InvalidSignature, match="no signature"):
        verify_signature(replace(made(), signatures=()), KEYS)


@pytest.mark.parametrize("name", ["service", "measurement", "keyset", "weights"])
def test_another_origin_is_named_in_the_rejection(name: str) -> None:
    wanted: dict[str, str | bytes] = {
        "service": "chat", "measurement": b"M" * 32, "keyset": b"K" * 32, "weights": b"W" * 32,
    }  # fmt: skip
    wanted[name] = "other" if name == "service" else b"x" * 32
    with pytest.raises(Rejected) as caught:
        verify_origin(made(), **wanted)  # type: ignore[arg-type]
    assert caught.value.check == f"receipt {name}"


CHANGES: list[tuple[str, type[QuotaryError], Callable[[Receipt], Receipt], Exchange]] = [
    ("receipt channel", Rejected, lambda r: replace(r, channel=None), EXCHANGE),
    ("receipt channel", Rejected, lambda r: replace(r, salt=None), EXCHANGE),
    ("receipt request wire", Rejected, lambda r: r, replace(EXCHANGE, request_wire=b"v" * 32)),
    ("receipt request", Rejected, lambda r: r, replace(EXCHANGE, request=b"another question")),
    ("receipt request", Rejected, lambda r: replace(r, salt=b"s" * 32), EXCHANGE),
    ("receipt response", Rejected, lambda r: r, replace(EXCHANGE, response=b"another answer")),
    ("receipt frames", Rejected, lambda r: r, replace(EXCHANGE, chains=(b"0" * 32, b"1" * 32))),
    ("receipt chain", Rejected, lambda r: r, replace(EXCHANGE, chains=(b"0" * 32, b"1" * 32, b"x" * 32))),
    ("receipt log", Refused, lambda r: r, replace(EXCHANGE, min_log_size=43)),
    ("receipt log", Refused, lambda r: replace(r, origin=replace(r.origin, size_at_end=41)), EXCHANGE),
    ("receipt complete", Refused, lambda r: replace(r, served=replace(r.served, complete=False)), EXCHANGE),
]


@pytest.mark.parametrize(("check", "error", "change", "exchange"), CHANGES)
def test_each_statement_about_the_exchange_is_checked(
    check: str, error: type[QuotaryError], change: Callable[[Receipt], Receipt], exchange: Exchange
) -> None:
    with pytest.raises(error) as caught:
        verify_exchange(change(made()), exchange)
    assert caught.value.check == check  # type: ignore[attr-defined]
