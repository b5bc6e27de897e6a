"""The format pages of the channel, receipts and weights: their examples are read by the code they describe."""

import re
from pathlib import Path

import pytest

from quotary.client.ratchet import Offer
from quotary.client.receipt import Receipt
from quotary.client.receipt_root import ReceiptPlace
from quotary.client.sealed import Head, ResponseHead
from quotary.manifest import Manifest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "formats"


def example(page: str, name: str) -> bytes:
    found = re.search(rf"^```[a-z]+ {name}\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].encode()


@pytest.mark.parametrize(
    ("page", "name", "kind"),
    [
        ("sealed.md", "head", Head),
        ("sealed.md", "response", ResponseHead),
        ("sealed.md", "session", Offer),
        ("receipt.md", "receipt", Receipt),
        ("receipt.md", "place", ReceiptPlace),
    ],
)
def test_the_example_is_a_document_of_the_format(page: str, name: str, kind: type[Head]) -> None:
    text = example(page, name).rstrip(b"\n")
    assert kind.parse(text).encode() == text


def test_the_example_manifest_is_one() -> None:
    text = example("weights.md", "manifest")
    assert Manifest.parse(text).encode() == text
