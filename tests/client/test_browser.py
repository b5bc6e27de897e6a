"""What the enclave's page kept, verified in Python: good, and broken in every part."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from enclave.doors import browser
from enclave.doors.book import Exchange
from enclave.doors.keys import BROWSER, DoorKeys
from quotary.canonical import b64, unb64
from quotary.client.browser import TYPE, Kept, verify_kept
from quotary.errors import InvalidSignature, Malformed, QuotaryError, Rejected

MEASUREMENT, REQUEST, RESPONSE = b"M" * 32, b'{"messages":[]}', b'{"choices":[]}'


def made() -> dict[str, Any]:
    """A kept file as an enclave's door signs it."""
    keys = DoorKeys((BROWSER,))
    digests = (hashlib.sha256(REQUEST).digest(), hashlib.sha256(RESPONSE).digest())
    return {
        "type": TYPE,
        "quote": browser.quote(keys, MEASUREMENT, 1_795_000_000),
        "receipt": browser.receipt(keys, Exchange(*digests, 1_795_000_001)),
        "request": b64(REQUEST),
        "response": b64(RESPONSE),
    }


@pytest.fixture
def document() -> dict[str, Any]:
    return made()


def kept(document: dict[str, Any]) -> Kept:
    return Kept.parse(json.dumps(document).encode())


def test_what_an_enclave_signed_holds(document: dict[str, Any]) -> None:
    verify_kept(kept(document), MEASUREMENT)


def flipped(text: str) -> str:
    data = bytearray(unb64(text))
    data[-1] ^= 1
    return b64(bytes(data))


@pytest.mark.parametrize(
    ("change", "error", "wanted"),
    [
        (lambda d: d["quote"].update(measurement="4e" * 32), Rejected, "measurement"),
        (lambda d: d["quote"].update(time=5), InvalidSignature, "the quote"),
        (
            lambda d: d["quote"].update(signature=flipped(d["quote"]["signature"])),
            InvalidSignature,
            "the quote",
        ),
        (lambda d: d["quote"].update(key=flipped(d["quote"]["key"])), Malformed, "no point"),
        (lambda d: d["receipt"].update(time=5), InvalidSignature, "the receipt"),
        (lambda d: d["receipt"].update(signature=d["quote"]["signature"]), InvalidSignature, "the receipt"),
        (lambda d: d.update(request=b64(b"{}")), Rejected, "receipt request"),
        (lambda d: d.update(response=b64(b"{}")), Rejected, "receipt response"),
        (lambda d: d.update(more=1), Malformed, "more"),
        (lambda d: d["receipt"].update(more=1), Malformed, "more"),
        (lambda d: d["quote"].update(v=2), Malformed, "v"),
        (lambda d: d.update(type="quotary/evidence/v1"), Malformed, "type"),
    ],
)
def test_what_was_changed_does_not(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None], error: type[QuotaryError], wanted: str
) -> None:
    change(document)
    with pytest.raises(error, match=wanted):
        verify_kept(kept(document), MEASUREMENT)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (1 << 21)])
def test_what_is_no_kept_file_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Kept.parse(data)
