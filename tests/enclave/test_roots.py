"""Roots over receipts in a serving enclave."""

from quotary.client.receipt import Receipt
from quotary.client.receipt_root import ReceiptPlace, parse_roots, verify_place
from tests.enclave.api_site import Site, body


def test_a_receipts_place_is_given_once_its_minute_is_over(site: Site) -> None:
    opener, _ = site.ask(body())
    assert opener.receipt is not None
    receipt = Receipt.parse(opener.receipt)
    path = f"/v1/receipts/{receipt.served.receipt_id}/place"
    assert site.http.get(path).status_code == 404
    assert parse_roots(site.http.get("/v1/receipt-roots").data) == ()
    site.clock.seconds += 61
    place = ReceiptPlace.parse(site.http.get(path).data)
    verify_place(receipt, place)
    assert parse_roots(site.http.get("/v1/receipt-roots").data) == (place.root,)
    assert site.http.get(f"/v1/receipts/{'0' * 32}/place").status_code == 404
